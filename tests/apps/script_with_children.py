"""A script that forks a process which outlives it."""

import multiprocessing
import sys
import time

from aiohttp import web

context = multiprocessing.get_context("fork")
child = context.Process(target=time.sleep, args=(float(sys.argv[1]),))
child.start()
sys.stdout.write(f"forked {child.pid}\n")
web.run_app(web.Application(), host="127.0.0.1", port=0, print=None)
