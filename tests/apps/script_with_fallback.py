"""A script which takes another port when its first one is in use, and reads its own file after moving away."""

import errno
import os
import sys

from aiohttp import web

app = web.Application()
os.chdir("/")
with open(__file__) as file:  # as scripts do
    assert file.readline().startswith('"""A script')

try:
    web.run_app(app, host="127.0.0.1", port=sys.argv[1])
except OSError as error:
    assert error.errno == errno.EADDRINUSE
    web.run_app(app, host="127.0.0.1", port="0")
