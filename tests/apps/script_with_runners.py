"""A script which serves two applications with runners of its own, beside something else in its loop."""

import argparse
import asyncio
import sys
import threading

from aiohttp import web


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


def application(path: str) -> web.Application:
    app = web.Application()
    app.router.add_get(path, hello)
    return app


async def serve(runner: web.AppRunner) -> str:
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return "http://{}:{}".format(*runner.addresses[0][:2])


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frozen", action="store_true")
    parser.add_argument("--gather", action="store_true")
    parser.add_argument("--thread", action="store_true")
    arguments = parser.parse_args()
    first, second = application("/first"), application("/second")
    if arguments.frozen:
        web.Application().add_subapp("/below", second)
    runners = [web.AppRunner(first), web.AppRunner(second), web.AppRunner(first)]
    if arguments.gather:
        urls = await asyncio.gather(*map(serve, runners))
    else:
        urls = [await serve(runner) for runner in runners]
    sys.stdout.write(f"serving {' '.join(urls)}\n")
    try:
        await asyncio.Event().wait()
    finally:
        for runner in runners:
            await runner.cleanup()
        sys.stdout.write("cleaned up\n")


if __name__ == "__main__":
    if "--thread" in sys.argv:
        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
        thread.join()
    else:
        asyncio.run(main())
