"""One handler for each way to give a response, which stops at the moment that a scene names.

A *scene* is one request, seen from the outside: the test waits until the handler has reached a moment, ends the connection in
some way, and lets the handler go on. ``create_app`` is the application for those that have real processes as clients.
"""

import asyncio
import contextlib
import io
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiohttp import ClientConnectionResetError, web
from prometheus_client import Gauge

#: The moments of a response, in their order. In ``IN_DRAIN`` the server waits for a client that does not read.
MOMENTS = (
    BEFORE_HEAD, AFTER_HEAD, BETWEEN_WRITES, IN_DRAIN, AFTER_LAST_WRITE, AFTER_EOF, AFTER_HANDLER,
) = (
    "before the head", "after the head", "between writes", "in drain", "after the last write", "after write_eof",
    "after the handler",
)  # fmt: skip

PIECE = random.Random(1).randbytes(1000)  # noqa: S311  # it cannot be compressed
#: A body that is larger than all buffers between a server and a client, which the test makes small.
BLOCK = random.Random(2).randbytes(2**16)  # noqa: S311
LARGE = BLOCK * 16


class Scene:
    """One request whose handler stops at a moment."""

    def __init__(self, moment: str) -> None:
        self.moment = moment
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        #: The bytes of a streamed body that were handed to the transport, before compression.
        self.handed = 0
        self.request: web.Request | None = None
        self.task: asyncio.Task | None = None

    async def at(self, moment: str) -> None:
        """Stop here, if this is the moment."""
        if moment == self.moment:
            self.reached.set()
            await self.go_on.wait()

    @property
    def is_open(self) -> bool:
        """Whether the server still knows of no end of the connection."""
        transport = self.request.transport
        return transport is not None and not transport.is_closing()

    @property
    def is_in_drain(self) -> bool:
        """Whether the server must wait until its client reads."""
        protocol = self.request.protocol if self.request is not None else None
        return protocol is not None and protocol.writing_paused

    async def write(self, response: web.StreamResponse, data: bytes) -> None:
        if self.is_open:
            self.handed += len(data)
        await response.write(data)


#: The scenes of an application, by the paths that are asked for.
SCENES = web.AppKey("scenes", dict[str, Scene])
FILES = web.AppKey("files", Path)


def scene_of(request: web.Request) -> Scene:
    return request.app[SCENES][request.path]


# Responses that aiohttp sends when the handler has returned or raised.


async def returns(make: Callable[[], web.StreamResponse], request: web.Request) -> web.StreamResponse:
    await scene_of(request).at(BEFORE_HEAD)
    return make()


async def raises(make: Callable[[], Exception], request: web.Request) -> web.StreamResponse:
    await scene_of(request).at(BEFORE_HEAD)
    raise make()


async def uploaded(request: web.Request) -> web.Response:
    scene_of(request).reached.set()
    return web.Response(body=await request.read())


async def file(name: str, request: web.Request) -> web.StreamResponse:
    await scene_of(request).at(BEFORE_HEAD)
    return web.FileResponse(request.app[FILES] / name)


async def generated(request: web.Request) -> web.Response:
    scene = scene_of(request)

    async def body():
        await scene.at(BEFORE_HEAD)
        for part in [PIECE, PIECE, BETWEEN_WRITES, *rest(scene), AFTER_LAST_WRITE]:
            if isinstance(part, str):
                await scene.at(part)
            else:
                if scene.is_open:
                    scene.handed += len(part)
                yield part

    return web.Response(body=body())


def compressed() -> web.Response:
    response = web.Response(body=LARGE)
    response.enable_compression(web.ContentCoding.gzip)
    return response


# Responses that the handler sends itself.


def rest(scene: Scene) -> list[bytes]:
    """Return what is written behind the moment between writes."""
    return [BLOCK] * 16 if scene.moment == IN_DRAIN else [PIECE, PIECE]


def chunked(_scene: Scene) -> web.StreamResponse:
    return web.StreamResponse()


def sized(scene: Scene) -> web.StreamResponse:
    length = 2 * len(PIECE) + sum(map(len, rest(scene)))
    return web.StreamResponse(headers={"Content-Length": str(length)})


def gzipped(_scene: Scene) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_compression(web.ContentCoding.gzip)
    return response


def events(_scene: Scene) -> web.StreamResponse:
    return web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})


async def write_body(scene: Scene, response: web.StreamResponse) -> None:
    for part in [PIECE, PIECE, BETWEEN_WRITES, *rest(scene), AFTER_LAST_WRITE]:
        await (scene.at(part) if isinstance(part, str) else scene.write(response, part))


async def write_in_time(scene: Scene, response: web.StreamResponse) -> None:
    """Write as those do who give each write its time; before Python 3.12 it has a task of its own then."""
    for part in [PIECE, PIECE, BETWEEN_WRITES, *rest(scene), AFTER_LAST_WRITE]:
        await asyncio.wait_for(scene.at(part) if isinstance(part, str) else scene.write(response, part), 60)


async def write_in_background(scene: Scene, response: web.StreamResponse) -> None:
    """Write as aiohttp-sse pings: in a task that keeps to itself that the client is gone."""

    async def write() -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            await write_body(scene, response)

    task = asyncio.create_task(write())
    try:
        await asyncio.wait([task])
    finally:
        task.cancel()


async def write_nothing(_scene: Scene, _response: web.StreamResponse) -> None:
    """Leave a response without its body, as for HEAD, 204 and 304."""


def streams(make: Callable[[Scene], web.StreamResponse], write=write_body):
    async def handler(request: web.Request) -> web.StreamResponse:
        scene = scene_of(request)
        response = make(scene)
        await scene.at(BEFORE_HEAD)
        await response.prepare(request)
        await scene.at(AFTER_HEAD)
        await write(scene, response)
        await response.write_eof()
        await scene.at(AFTER_EOF)
        return response

    return handler


def streams_without_eof(make: Callable[[Scene], web.StreamResponse]):
    """Write all of the body, and leave its end to aiohttp."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = make(scene_of(request))
        await response.prepare(request)
        await write_body(scene_of(request), response)
        return response

    return handler


def swallows(kinds: tuple[type[BaseException], ...], handler):
    """Return as if all had been sent."""

    async def swallowing(request: web.Request) -> web.StreamResponse:
        made: list[web.StreamResponse] = []

        def make(scene: Scene) -> web.StreamResponse:
            made.append(chunked(scene) if handler is not sized else sized(scene))
            return made[0]

        try:
            return await streams(make)(request)
        except kinds:
            return made[0]

    return swallowing


def wraps(handler, *, keeps_context: bool):
    """Raise an error of the application's own in place of the connection's."""

    async def wrapping(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except ConnectionError as error:
            if keeps_context:
                raise ValueError("the export failed") from error
        raise ValueError("the export failed")

    return wrapping


def fails(error: type[Exception]):
    """Fail when the half of a stream has been written."""

    async def handler(request: web.Request) -> web.StreamResponse:
        scene = scene_of(request)
        response = web.StreamResponse(status=202)
        await response.prepare(request)
        await scene.write(response, PIECE)
        await scene.at(BETWEEN_WRITES)
        raise error("on purpose")

    return handler


@dataclass(frozen=True)
class Kind:
    """A way to give a response.

    *moments* are those at which its handler can be stopped; from *whole_from* on, all of it has been handed over.
    """

    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    moments: tuple[str, ...]
    whole_from: str = AFTER_HANDLER
    status: int = 200
    method: str = "GET"
    version: str = "1.1"
    length: int = 0  # of the request's body, which a client never sends to its end
    is_compressed: bool = False
    is_file: bool = False  # so that the operating system may send it
    is_broken_off: bool = False  # by its handler, so that a client which stays has the status and half of the body

    def is_whole(self, moment: str) -> bool:
        """Whether all of the response has been handed over at this moment."""
        return MOMENTS.index(moment) >= MOMENTS.index(self.whole_from)


PLAIN = (BEFORE_HEAD, AFTER_HANDLER)
STREAM = (BEFORE_HEAD, AFTER_HEAD, BETWEEN_WRITES, IN_DRAIN, AFTER_LAST_WRITE, AFTER_EOF, AFTER_HANDLER)
BODILESS = (BEFORE_HEAD, AFTER_HEAD, AFTER_EOF, AFTER_HANDLER)


def small() -> web.Response:
    return web.Response(body=PIECE)


KINDS = {
    "plain": Kind(partial(returns, small), PLAIN),
    "json": Kind(partial(returns, lambda: web.json_response({"a": 1})), PLAIN),
    "empty": Kind(partial(returns, web.Response), PLAIN),
    "204": Kind(partial(returns, lambda: web.Response(status=204)), PLAIN, status=204),
    "304": Kind(partial(returns, lambda: web.Response(status=304)), PLAIN, status=304),
    "HEAD": Kind(partial(returns, small), PLAIN, method="HEAD"),
    "unread upload": Kind(partial(returns, small), PLAIN, method="POST", length=2**20),
    "upload": Kind(uploaded, (BEFORE_HEAD,), method="POST", length=1000),
    "200 kB": Kind(partial(returns, lambda: web.Response(body=bytes(200_000))), PLAIN),
    # One write hands all of a plain response to the transport, though the client may read it much later.
    "large": Kind(partial(returns, lambda: web.Response(body=LARGE)), (*PLAIN, IN_DRAIN), IN_DRAIN),
    "large compressed": Kind(partial(returns, compressed), (*PLAIN, IN_DRAIN), IN_DRAIN, is_compressed=True),
    "large payload": Kind(partial(returns, lambda: web.Response(body=io.BytesIO(LARGE))), (*PLAIN, IN_DRAIN)),
    "generated": Kind(generated, (BEFORE_HEAD, BETWEEN_WRITES, IN_DRAIN, AFTER_LAST_WRITE, AFTER_HANDLER)),
    "file": Kind(partial(file, "small"), PLAIN, is_file=True),
    "HEAD of file": Kind(partial(file, "large"), PLAIN, method="HEAD", is_file=True),
    "large file": Kind(partial(file, "large"), (*PLAIN, IN_DRAIN), is_file=True),
    "missing file": Kind(partial(file, "missing"), PLAIN, status=404),
    "raised 404": Kind(partial(raises, web.HTTPNotFound), PLAIN, status=404),
    "raised 302": Kind(partial(raises, partial(web.HTTPFound, "/")), PLAIN, status=302),
    "raised large": Kind(
        partial(raises, lambda: web.HTTPForbidden(text="x" * len(LARGE))), (*PLAIN, IN_DRAIN), IN_DRAIN, status=403
    ),
    "error": Kind(partial(raises, ValueError), PLAIN, status=500),
    "time-out": Kind(partial(raises, TimeoutError), PLAIN, status=504),
    "nothing returned": Kind(partial(returns, lambda: None), PLAIN, status=500),
    # An error of a connection, but not of this one.
    "upstream's error": Kind(partial(raises, ClientConnectionResetError), PLAIN, status=500),
    "stream": Kind(streams(chunked), STREAM, AFTER_EOF),
    "sized stream": Kind(streams(sized), STREAM, AFTER_LAST_WRITE),
    "compressed stream": Kind(streams(gzipped), STREAM, AFTER_EOF, is_compressed=True),
    "stream of HTTP 1.0": Kind(
        # Where the end of the connection is that of the body, it is undecided whether a last write was the last byte.
        streams(chunked),
        (BEFORE_HEAD, AFTER_HEAD, BETWEEN_WRITES, IN_DRAIN, AFTER_EOF),
        AFTER_EOF,
        version="1.0",
    ),
    "stream without write_eof": Kind(
        streams_without_eof(chunked), (BETWEEN_WRITES, IN_DRAIN, AFTER_LAST_WRITE, AFTER_HANDLER)
    ),
    "sized stream without write_eof": Kind(
        streams_without_eof(sized), (BETWEEN_WRITES, IN_DRAIN, AFTER_LAST_WRITE, AFTER_HANDLER), AFTER_LAST_WRITE
    ),
    "HEAD of stream": Kind(streams(sized, write_nothing), BODILESS, AFTER_HEAD, method="HEAD"),
    "HEAD of chunked stream": Kind(streams(chunked, write_nothing), BODILESS, AFTER_HEAD, method="HEAD"),
    "204 of stream": Kind(
        streams(lambda _scene: web.StreamResponse(status=204), write_nothing), BODILESS, AFTER_HEAD, status=204
    ),
    "wait_for": Kind(streams(chunked, write_in_time), STREAM, AFTER_EOF),
    "events": Kind(streams(events, write_in_background), STREAM, AFTER_EOF),
    "wrapped": Kind(wraps(streams(chunked), keeps_context=True), STREAM, AFTER_EOF),
    "wrapped without context": Kind(wraps(streams(chunked), keeps_context=False), STREAM, AFTER_EOF),
    "swallowed": Kind(swallows((ConnectionError,), chunked), STREAM, AFTER_EOF),
    "swallowed sized": Kind(swallows((ConnectionError,), sized), STREAM, AFTER_LAST_WRITE),
    "cancellation swallowed": Kind(swallows((ConnectionError, asyncio.CancelledError), chunked), STREAM, AFTER_EOF),
    # The client has the status of a stream that its handler breaks off, and is still there.
    "failing stream": Kind(fails(ValueError), (BETWEEN_WRITES,), status=202, is_broken_off=True),
    "upstream's error in a stream": Kind(
        fails(ClientConnectionResetError), (BETWEEN_WRITES,), status=202, is_broken_off=True
    ),
}


def write_files(directory: Path) -> None:
    (directory / "small").write_bytes(PIECE)
    (directory / "large").write_bytes(LARGE)


# What is served to real clients.


#: The bytes that the latest writer waits for its client to read.
WAITING = Gauge("a_writer_waits_for_bytes", "So that a test sees it in drain")


async def writes(request: web.Request) -> web.StreamResponse:
    """Write much more than all buffers hold."""
    response = web.StreamResponse()
    await response.prepare(request)
    WAITING.set_function(request.transport.get_write_buffer_size)
    for _ in range(2000):
        await response.write(b"x" * 10_000)
    return response


async def lingers(request: web.Request) -> web.StreamResponse:
    """Return when the client has gone, which was sent all before."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"all of it")
    await response.write_eof()
    while request.transport is not None:
        await asyncio.sleep(0.001)
    return response


def create_app() -> web.Application:
    long = Gauge("a_gauge_with_long_labels", "So that a scrape is large", ["series"])
    for series in range(130):
        long.labels(f"{series:01000}").set(series)
    app = web.Application()
    app.router.add_get("/writes", writes)
    app.router.add_get("/lingers", lingers)
    return app
