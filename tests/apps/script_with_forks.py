"""A script that forks two processes, each of which serves."""

import multiprocessing
import socket

from aiohttp import web


def serve(sock: socket.socket) -> None:
    web.run_app(web.Application(), sock=sock)


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        processes = [context.Process(target=serve, args=(listening,)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
