"""A script that is stopped while a client comes in each turn of its event loop. It says how they are answered."""

import asyncio
import gc
import os
import signal
import socket
import sys

from aiohttp import web

REQUEST = b"GET / HTTP/1.0\r\n\r\n"
address = sys.argv[1], int(sys.argv[2])
clients: list[socket.socket] = []


async def answer(_request: web.Request) -> web.Response:
    return web.Response()


async def stop() -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(REQUEST)
    await reader.read()  # so it is served
    writer.close()
    os.kill(os.getpid(), signal.SIGTERM)
    while True:
        await asyncio.sleep(0)
        clients.append(socket.create_connection(address))
        clients[-1].sendall(REQUEST)


async def on_startup(app: web.Application) -> None:
    app["stop"] = asyncio.create_task(stop())


def end_of(client: socket.socket) -> str:
    with client:
        client.settimeout(0.1)
        try:
            return client.recv(12).decode() or "nothing"
        except TimeoutError:
            return "waits"
        except ConnectionError as error:
            return str(error)


app = web.Application()
app.router.add_get("/", answer)
app.on_startup.append(on_startup)
web.run_app(app, backlog=100, print=None)
gc.collect()  # which closes connections that were dropped
for client in clients:
    sys.stdout.write(f"{end_of(client)}\n")
