"""A script that forks two processes, each of which serves."""

import asyncio
import multiprocessing
import socket
import sys

from aiohttp import web


def serve(sock: socket.socket) -> None:
    if sys.argv[1] == "run_app":
        web.run_app(web.Application(), sock=sock)
    else:
        asyncio.run(serve_with_runner(sock))


async def serve_with_runner(sock: socket.socket) -> None:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.SockSite(runner, sock).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        processes = [context.Process(target=serve, args=(listening,)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
