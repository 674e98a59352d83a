"""An application with something to see in each of the request metrics."""

from aiohttp import web
import asyncio


async def root(_request):
    return web.Response(text="hello")


async def slow(_request):
    await asyncio.sleep(0.3)
    return web.Response(text="done")


async def broken(_request):
    raise web.HTTPServiceUnavailable


async def item(request):
    return web.Response(text=f"{request.match_info['item']}: {len(await request.read())}")


async def talk(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data)
    return socket


def create_app():
    app = web.Application()
    app.router.add_get("/", root, name="root")
    app.router.add_get("/slow", slow, name="slow")
    app.router.add_get("/broken", broken, name="broken")
    app.router.add_get("/items/{item}", item, name="item")
    app.router.add_put("/items/{item}", item, name="put_item")
    app.router.add_get("/talk", talk, name="talk")
    return app
