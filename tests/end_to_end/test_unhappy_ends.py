"""What the metrics say of requests that end badly: refused, broken off, failed half-way; and of WebSockets.

Each case is a conversation with the server, byte by byte, and the one status with which it is recorded.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiohttp import ClientSession, WSMsgType, WSServerHandshakeError, web
from conftest import APPS, DEADLINE, counts, samples
from prometheus_client import CollectorRegistry, generate_latest

from hr_prometheus import access_log_class, hrprometheus_middleware, instrument

sys.path.insert(0, str(APPS))
from responses import create_app
from test_truth import WRITES_ARE_TOLD


@dataclass
class Server:
    """A server to talk to, and its metrics."""

    host: str
    port: int
    scrape: object

    async def say(self, data: bytes, *, hear: int | None = None, reset: bool = False) -> bytes:
        """Send *data*, hear so many bytes of the answer, or all of it, and hang up, with a reset or without."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(data)
        async with asyncio.timeout(DEADLINE):
            heard = await reader.read() if hear is None else await reader.readexactly(hear)
        if reset:  # an RST instead of a FIN
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        return heard

    async def until(self, condition) -> dict[str, float]:
        """Scrape until it is so."""
        async with asyncio.timeout(DEADLINE):
            while True:
                text = await self.scrape()
                if condition(text):
                    return samples(text)
                await asyncio.sleep(0.01)

    async def recorded(self, expected: dict) -> dict[str, float]:
        """Wait until just these requests have been counted, and check that none is in progress."""
        found = await self.until(lambda text: sum(counts(text).values()) >= sum(expected.values()))
        assert counts(await self.scrape()) == expected
        assert not [key for key, value in found.items() if "in_progress" in key and "/metrics" not in key and value]
        assert not [key for key in found if key.startswith("hr_prometheus_errors")]
        return found


@asynccontextmanager
async def app_runner(app, registry: CollectorRegistry, **arguments):
    runner = web.AppRunner(app, access_log_class=access_log_class(app), shutdown_timeout=1, **arguments)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()

    async def scrape() -> str:
        return generate_latest(registry).decode()

    try:
        yield Server(*runner.addresses[0], scrape)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def command(serve):
    options = ("--log-level", "critical", "--loop", "asyncio", "--keep-values", "all")
    service = serve("responses:create_app", "--port", "0", *options)

    async def scrape() -> str:
        async with ClientSession() as session, session.get(service.metrics_url) as response:
            return await response.text()

    host, port = service.url.removeprefix("http://").split(":")
    yield Server(host, int(port), scrape)
    assert service.stop()[0] == 0


INSTRUMENTED = ["runner", "runner with handler_cancellation", "command"]


@pytest.fixture(params=[*INSTRUMENTED, "middleware alone"])
async def server(request, registry, serve):
    """A server in each way to serve."""
    if request.param == "command":
        context = command(serve)
    else:
        app = create_app()
        if request.param == "middleware alone":
            app.middlewares.insert(0, hrprometheus_middleware(registry=registry, detail="full", keep_values="all"))
        else:
            instrument(app, registry=registry, keep_values="all")
        context = app_runner(app, registry, handler_cancellation="cancellation" in request.param)
    async with context as running:
        yield running


def get(path: str, *lines: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"GET {path} HTTP/{version}", "Host: x", "Connection: close", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
    ],
)
async def test_a_request_that_the_parser_refuses(server, data):
    """It is recorded as the 400 that it gets, under a label of its own."""
    answer = await server.say(data)
    assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    found = await server.recorded({("unknown", "malformed", "400"): 1})
    body = answer.partition(b"\r\n\r\n")[2]
    assert found['response_size_bytes_sum{method="unknown",path="malformed"}'] == len(body)


async def test_a_malformed_request_behind_a_good_one(server):
    """On a connection that has served a request, both are recorded."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"GET /text HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"hello, world")
    writer.write(b"nonsense\r\n\r\n")
    assert b" 400 Bad Request" in await reader.read()
    writer.close()
    await server.recorded({("GET", "/text", "200"): 1, ("unknown", "malformed", "400"): 1})


@pytest.mark.parametrize("server", INSTRUMENTED, indirect=True)
async def test_an_expectation_that_is_not_met(server):
    """A wrong Expect is answered before any middleware, and recorded all the same."""
    assert (await server.say(get("/text", "Expect: miracles"))).startswith(b"HTTP/1.1 417")
    await server.recorded({("GET", "/text", "417"): 1})


async def test_pipelined_requests(server):
    """Each of several requests in one packet is recorded."""
    await server.say(b"GET /text HTTP/1.1\r\nHost: x\r\n\r\n" * 4 + get("/status/503"))
    await server.recorded({("GET", "/text", "200"): 4, ("GET", "/status/503", "503"): 1})


@pytest.mark.parametrize("path", ["/stream", "/stream-compressed", "/lazy", "/compressed"])
async def test_http_1_0(server, path):
    """Without chunks the body is all that follows the head."""
    body = (await server.say(get(path, version="1.0"))).partition(b"\r\n\r\n")[2]
    found = await server.recorded({("GET", path, "200"): 1})
    assert found[f'response_size_bytes_sum{{method="GET",path="{path}"}}'] == len(body)


async def test_a_stream_that_fails_in_its_middle(server):
    """The client has the status, and then an unfinished body: both are recorded as they were."""
    answer = await server.say(get("/stream-fails"))
    assert answer.startswith(b"HTTP/1.1 202")
    assert answer.endswith(b"5\r\nfirst\r\n")
    found = await server.recorded({("GET", "/stream-fails", "202"): 1})
    sent = found['response_size_bytes_sum{method="GET",path="/stream-fails"}']
    assert sent == len("first") if WRITES_ARE_TOLD else len("5\r\nfirst\r\n")
    assert (
        found['request_first_byte_latency_sum{method="GET",path="/stream-fails"}']
        < (found['request_latency_sum{method="GET",path="/stream-fails"}'])
    )


async def test_a_response_that_cannot_be_written(server):
    """A header that aiohttp refuses leaves the client with nothing: 499, since no status was sent."""
    assert await server.say(get("/header/x")) == b""
    found = await server.recorded({("GET", "/header/x", "499"): 1})
    assert found['response_size_bytes_sum{method="GET",path="/header/x"}'] == 0


async def test_a_response_prepared_in_vain(server):
    """The status is that of the head which has left, not of one that was only prepared."""
    status = (await server.say(get("/prepared-in-vain")))[9:12].decode()
    assert status in ("400", "200")  # aiohttp before 3.12 sends a head as soon as it is prepared
    await server.recorded({("GET", "/prepared-in-vain", status): 1})


async def test_a_stream_that_swallows_its_clients_leaving(server):
    """499, though the handler returns as if all had been sent."""
    await server.say(get("/stream-swallows"), hear=5000, reset=True)
    await server.recorded({("GET", "/stream-swallows", "499"): 1})


@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_leaves_before_the_answer(server, reset):
    """499, whether or not the handler was cancelled; nothing was sent."""
    await server.say(get("/slow"), hear=0, reset=reset)
    found = await server.recorded({("GET", "/slow", "499"): 1})
    assert found['response_size_bytes_sum{method="GET",path="/slow"}'] == 0
    assert found['request_first_byte_latency_count{method="GET",path="/slow"}'] == 0


@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_leaves_during_a_stream(server, reset):
    """499, with the bytes that were handed over until then."""
    await server.say(get("/endless"), hear=5000, reset=reset)
    found = await server.recorded({("GET", "/endless", "499"): 1})
    assert found['response_size_bytes_sum{method="GET",path="/endless"}'] >= 4000


@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_leaves_during_a_file(server, reset):
    """499; how much sendfile has sent is not known, and so not counted."""
    await server.say(get("/file/huge.bin"), hear=100_000, reset=reset)
    found = await server.recorded({("GET", "/file/huge.bin", "499"): 1})
    assert found['response_size_bytes_count{method="GET",path="/file/huge.bin"}'] == 0


async def test_a_client_that_leaves_during_its_upload(server):
    """499, with the bytes that had arrived."""
    await server.say(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n0123456789", hear=0)
    found = await server.recorded({("POST", "/echo", "499"): 1})
    assert found['request_size_bytes_sum{method="POST",path="/echo"}'] == 10


async def test_a_websocket(server):
    """It is in progress while it is open, then has a duration and a close code; and it is no latency."""
    url = f"http://{server.host}:{server.port}/websocket"
    open_now = 'websocket_connections_in_progress{path="/websocket"}'
    async with ClientSession() as session:
        async with session.ws_connect(url) as connection:
            await connection.send_str("hello")
            assert (await connection.receive()).data == "hello"
            await server.until(lambda text: samples(text).get(open_now) == 1)
        connection = await session.ws_connect(url)
        await connection.close(code=4001)
        connection = await session.ws_connect(url)
        await connection.send_str("fail")
        assert (await connection.receive()).type is WSMsgType.CLOSED
        await connection.close()
        connection = await session.ws_connect(url)
        connection._response.connection.transport.abort()
        await connection.close()
        with pytest.raises(WSServerHandshakeError):
            await session.ws_connect(f"http://{server.host}:{server.port}/text")
    found = await server.recorded({("GET", "/websocket", "101"): 4, ("GET", "/text", "200"): 1})
    assert found['websocket_connection_duration_count{path="/websocket"}'] == 4
    assert {key: value for key, value in found.items() if key.startswith("websocket_closes")} == {
        'websocket_closes_total{by="client",code="1000",path="/websocket"}': 1,
        'websocket_closes_total{by="client",code="4xxx",path="/websocket"}': 1,
        'websocket_closes_total{by="client",code="1006",path="/websocket"}': 1,
        'websocket_closes_total{by="server",code="1006",path="/websocket"}': 1,
    }
    assert not [key for key in found if "latency" in key and "/websocket" in key]
    assert not [key for key in found if "size_bytes" in key and "/websocket" in key]


async def test_no_websocket_where_none_was_wanted(server):
    """A request without an upgrade gets a 400, and is an ordinary request."""
    assert (await server.say(get("/websocket"))).startswith(b"HTTP/1.1 400")
    found = await server.recorded({("GET", "/websocket", "400"): 1})
    assert not [key for key in found if key.startswith("websocket_")]


async def test_many_at_once(server):
    """Some hundred conversations of every kind, all at the same time, are counted exactly."""
    conversations = [
        (get("/text"), {}, ("GET", "/text", "200")),
        (get("/error"), {}, ("GET", "/error", "500")),
        (get("/slow"), {"hear": 0}, ("GET", "/slow", "499")),
        (get("/slow"), {"hear": 0, "reset": True}, ("GET", "/slow", "499")),
        (get("/endless"), {"hear": 3000, "reset": True}, ("GET", "/endless", "499")),
        (get("/stream-fails"), {}, ("GET", "/stream-fails", "202")),
        (get("/static/small.txt"), {}, ("GET", "/static/{filename}", "200")),
        (get("/nowhere"), {}, ("GET", "unmatched", "404")),
        (b"nonsense\r\n\r\n", {}, ("unknown", "malformed", "400")),
    ] * 20
    await asyncio.gather(*(server.say(data, **how) for data, how, _ in conversations))
    await server.recorded(Counter(status for _, _, status in conversations))


async def test_stopping_while_serving(registry):
    """Requests that a stop gives up are ended, and none stays in progress."""
    async with app_runner(instrument(create_app(), registry=registry), registry) as server:
        tasks = [asyncio.create_task(server.say(get("/endless"))) for _ in range(3)]
        _, slow_reader = await asyncio.open_connection(server.host, server.port, limit=2**10)
        slow_reader.write(get("/file/huge.bin"))
        async with ClientSession() as session:
            await session.ws_connect(f"http://{server.host}:{server.port}/websocket")
            await server.until(
                lambda text: sum(v for k, v in samples(text).items() if k.startswith("requests_in_progress")) == 5
            )
    await asyncio.gather(*tasks, return_exceptions=True)
    slow_reader.close()
    found = samples(generate_latest(registry).decode())
    assert not [key for key, value in found.items() if "in_progress" in key and value]
    assert counts(generate_latest(registry).decode()) == {
        ("GET", "/endless", "499"): 3,
        ("GET", "/file/huge.bin", "499"): 1,
        ("GET", "/websocket", "101"): 1,
    }
    assert found['response_size_bytes_count{method="GET",path="/file/huge.bin"}'] == 0


@pytest.mark.parametrize("detail", ["basic", "full"])
async def test_the_middleware_alone(registry, detail):
    """Without instrument, nothing is missing where the access log's class is ours; details or not."""
    app = create_app()
    app.middlewares.insert(0, hrprometheus_middleware(registry=registry, detail=detail))
    async with app_runner(app, registry) as server:
        await server.say(get("/text", "Expect: miracles"))
        for path in ("/text", "/stream-fails", "/stream", "/nowhere"):
            await server.say(get(path))
        await server.say(b"nonsense\r\n\r\n")
        async with ClientSession() as session:
            connection = await session.ws_connect(f"http://{server.host}:{server.port}/websocket")
            await connection.send_str("fail")
            assert (await connection.receive()).type is WSMsgType.CLOSED
            await connection.close()
        found = await server.recorded(
            {
                ("GET", "/websocket", "101"): 1,
                ("GET", "/text", "417"): 1,
                ("GET", "/text", "200"): 1,
                ("GET", "/stream-fails", "202"): 1,
                ("GET", "/stream", "200"): 1,
                ("GET", "unmatched", "404"): 1,
                ("unknown", "malformed", "400"): 1,
            }
        )
    if detail == "full":
        sent = found['response_size_bytes_sum{method="GET",path="/stream"}']
        assert sent == 3 + 3000 + 50_000 + 7


async def test_labels_of_every_text(server):
    """Whatever a client can write into a path, the scrape goes on and parses back."""
    for path in (
        '/status/200"',
        "/status/200\\n",
        "/status/%0A",
        "/status/%00",
        "/status/%2F%22",
        "/status/\u00e9",
        "/status/" + "9" * 3000,
    ):
        await server.say(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    await server.say(b"GET /status/\xff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    found = await server.until(lambda text: sum(counts(text).values()) == 8)
    assert 'request_count_total{method="GET",path="/status/\n",status="500"}' in found
    assert any(key.startswith('request_count_total{method="GET",path="/status/999') and "9…" in key for key in found)


async def test_a_websocket_that_cannot_be_prepared(registry):
    """If the application's own signal refuses it after ours has seen it, it does not stay in progress."""
    app = instrument(create_app(), registry=registry)

    async def refuse(_request, response):
        if response.status == 101:
            raise web.HTTPForbidden

    app.on_response_prepare.append(refuse)
    async with app_runner(app, registry) as server:
        async with ClientSession() as session:
            with pytest.raises(WSServerHandshakeError):
                await session.ws_connect(f"http://{server.host}:{server.port}/websocket")
        await server.recorded({("GET", "/websocket", "403"): 1})
