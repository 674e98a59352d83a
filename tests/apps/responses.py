"""One route for each way in which aiohttp answers."""

import asyncio
import tempfile
from pathlib import Path
from time import perf_counter

from aiohttp import WSMsgType, web

routes = web.RouteTableDef()
CHUNKS = [b"one", b"two" * 1000, b"three" * 10_000]


async def wait(seconds):
    """Wait no shorter than that: a timer is early by as much as uvloop was late when it was set."""
    end = perf_counter() + seconds
    while (left := end - perf_counter()) > 0:
        await asyncio.sleep(left)


@routes.get("/text")
async def text(_request):
    return web.Response(text="hello, world")


@routes.get("/empty")
async def empty(_request):
    return web.Response(status=204)


@routes.get("/not-modified")
async def not_modified(_request):
    return web.Response(status=304)


@routes.post("/echo")
async def echo(request):
    return web.Response(body=await request.read())


@routes.post("/unread")
async def unread(_request):
    return web.Response(text="no, thank you")


@routes.get("/status/{status}", name="status")
async def status(request):
    return web.Response(status=int(request.match_info["status"]), text="as you like it")


@routes.get("/raise/{status}", name="raised")
async def raise_status(request):
    kinds = {302: web.HTTPFound("/text"), 404: web.HTTPNotFound(), 403: web.HTTPForbidden(text="no")}
    raise kinds[int(request.match_info["status"])]


@routes.get("/error")
async def error(_request):
    raise RuntimeError("on purpose")


@routes.get("/timeout")
async def timeout(_request):
    raise TimeoutError


@routes.get("/nothing")
async def nothing(_request):
    return None


@routes.get("/compressed")
async def compressed(_request):
    response = web.Response(text="hello, world" * 1000)
    response.enable_compression(web.ContentCoding.gzip)
    return response


async def stream_chunks(request, response, chunks=CHUNKS):
    await response.prepare(request)
    for chunk in chunks:
        await response.write(chunk)
    return response


@routes.get("/stream")
async def stream(request):
    response = await stream_chunks(request, web.StreamResponse())
    await response.write_eof(b"the end")
    return response


@routes.get("/stream-compressed")
async def stream_compressed(request):
    response = web.StreamResponse()
    response.enable_compression(web.ContentCoding.deflate)
    return await stream_chunks(request, response)


@routes.get("/stream-compressed-eof")
async def stream_compressed_eof(request):
    response = web.StreamResponse()
    response.enable_compression(web.ContentCoding.gzip)
    await stream_chunks(request, response, [b"x"])
    await response.write_eof(b"the end" * 100)
    return response


@routes.get("/stream-sized")
async def stream_sized(request):
    return await stream_chunks(request, web.StreamResponse(headers={"Content-Length": "3003"}), CHUNKS[:2])


@routes.get("/stream-paused")
async def stream_paused(request):
    response = await stream_chunks(request, web.StreamResponse(), [b"first"])
    await wait(0.05)
    await response.write(b"second")
    return response


@routes.get("/stream-fails")
async def stream_fails(request):
    await stream_chunks(request, web.StreamResponse(status=202), [b"first"])
    await asyncio.sleep(0.02)
    raise RuntimeError("on purpose")


async def lazily():
    for chunk in CHUNKS:
        await wait(0.005)
        yield chunk


@routes.get("/header/{value}")
async def header(request):
    return web.Response(text="never", headers={"X-Value": request.match_info["value"] + "\n"})


@routes.get("/stream-swallows")
async def stream_swallows(request):
    response = web.StreamResponse(headers={"Content-Length": "100000000"})
    await response.prepare(request)
    try:
        while True:
            await response.write(b"x" * 1000)
            await asyncio.sleep(0.005)
    except ConnectionError:
        return response


@routes.get("/prepared-in-vain")
async def prepared_in_vain(request):
    await web.Response(text="never").prepare(request)
    raise web.HTTPBadRequest


@routes.get("/lazy")
async def lazy(_request):
    return web.Response(body=lazily())


@routes.get("/lazy-compressed")
async def lazy_compressed(_request):
    response = web.Response(body=lazily())
    response.enable_compression(web.ContentCoding.gzip)
    return response


@routes.get("/replaced")
async def replaced(_request):
    return web.Response(text="which nobody sees")


@routes.get("/file/{name}", name="file")
async def file(request):
    return web.FileResponse(Path(request.app["files"].name) / request.match_info["name"])


@routes.get("/file-compressed")
async def file_compressed(request):
    response = web.FileResponse(Path(request.app["files"].name) / "big.bin")
    response.enable_compression(web.ContentCoding.deflate)
    return response


@routes.get("/slow")
async def slow(_request):
    await asyncio.sleep(0.2)
    return web.Response(text="slow")


@routes.get("/endless")
async def endless(request):
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 1000)
        await asyncio.sleep(0.005)


@routes.get("/websocket")
async def websocket(request):
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    async for message in connection:
        if message.type is WSMsgType.TEXT and message.data == "close":
            await connection.close(code=4001)
        elif message.type is WSMsgType.TEXT and message.data == "fail":
            raise RuntimeError("on purpose")
        elif message.type is WSMsgType.TEXT:
            await connection.send_str(message.data)
    return connection


@web.middleware
async def replace(request, handler):
    response = await handler(request)
    return web.Response(status=418, text="a teapot") if request.path == "/replaced" else response


def create_app() -> web.Application:
    app = web.Application(middlewares=[replace], client_max_size=2**24)
    app.add_routes(routes)
    app["files"] = files = tempfile.TemporaryDirectory()
    (Path(files.name) / "small.txt").write_text("0123456789")
    (Path(files.name) / "big.bin").write_bytes(bytes(range(256)) * 4096)
    with (Path(files.name) / "huge.bin").open("wb") as huge:
        huge.truncate(2**26)

    async def remove_files(_app):
        files.cleanup()

    app.on_cleanup.append(remove_files)
    app.router.add_static("/static", files.name)
    return app
