"""A script which serves itself under ``__main__``, after reading its arguments."""

import argparse

from aiohttp import web

app = web.Application()

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    web.run_app(app, host="127.0.0.1", port=parser.parse_args().port)
