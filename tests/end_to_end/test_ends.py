"""When a request is a 499: for every way in which a connection ends, at every moment, with every kind of response.

The rule: if the last byte of the response was handed to the transport before the connection was lost, the status is
the one that was sent; else it is 499. What is true is known from outside: from the bytes that a client got, from what
the handler handed over, and from the moment at which the test ends the connection. What is recorded is what a scrape has.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import subprocess
import sys
import urllib.request
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import prometheus_client
import pytest
import uvloop
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from conftest import APPS, DEADLINE, samples, wait_for
from prometheus_client import CollectorRegistry

from hr_prometheus import access_log_class, hrprometheus_middleware, instrument
from hr_prometheus.monitors import BaseRequestMonitor

sys.path.insert(0, str(APPS))
import ends
from ends import (
    AFTER_EOF,
    AFTER_HANDLER,
    AFTER_LAST_WRITE,
    BEFORE_HEAD,
    BETWEEN_WRITES,
    IN_DRAIN,
    KINDS,
    LARGE,
    Kind,
    Scene,
)  # fmt: skip

if TYPE_CHECKING:
    from pathlib import Path

    from prometheus_client.samples import Sample

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
#: Bytes of the buffers on both sides of a connection, so that a large body does not fit into them.
BUFFER = 2**16
#: aiohttp from 3.14.4 on; before, sizes are those with the framing of chunks.
SIZES_ARE_EXACT = hasattr(AbstractStreamWriter, "on_body_write")
HEADS_ARE_BUFFERED = hasattr(AbstractStreamWriter, "send_headers")

STAYS, CLOSES, RESETS, HALF_CLOSES, IS_DROPPED, IS_CANCELLED, IS_SHUT_DOWN = ENDS = (
    "client stays", "client closes", "client resets", "client half-closes", "server drops", "task is cancelled",
    "server shuts down",
)  # fmt: skip
#: What a client with TLS can do besides: close without a close_notify, and reset when the event loop does not look.
CLOSES_ABRUPTLY, RESETS_UNSEEN = "client closes abruptly", "client resets unseen"


# How it is recorded.


def full(app: web.Application, registry: CollectorRegistry) -> None:
    instrument(app, registry=registry)


def basic(app: web.Application, registry: CollectorRegistry) -> None:
    app.middlewares.append(hrprometheus_middleware(registry=registry))


def full_middleware(app: web.Application, registry: CollectorRegistry) -> None:
    app.middlewares.append(hrprometheus_middleware(registry=registry, detail="full"))


def custom(app: web.Application, registry: CollectorRegistry) -> None:
    """Record with a monitor as the manual of hr-prometheus 0.2.0 has it, with metrics of its own."""
    labels = ["method", "path"]
    count = prometheus_client.Counter("request_count", "Count", [*labels, "status"], registry=registry)
    in_progress = prometheus_client.Gauge("requests_in_progress", "Gauge", labels, registry=registry)
    latency = prometheus_client.Histogram("request_latency", "Latency", labels, registry=registry)
    first_byte = prometheus_client.Histogram("request_first_byte_latency", "First byte", labels, registry=registry)
    size = prometheus_client.Histogram("response_size_bytes", "Size", labels, registry=registry)

    class Monitor(BaseRequestMonitor):
        def update_init_metrics(self) -> None:
            in_progress.labels(*self.request_description).inc()

        def update_end_metrics(self) -> None:
            in_progress.labels(*self.request_description).dec()
            count.labels(*self.request_description, self.response_status).inc()
            latency.labels(*self.request_description).observe(self.elapsed)
            if self.first_byte_elapsed is not None:
                first_byte.labels(*self.request_description).observe(self.first_byte_elapsed)
            if self.response_size is not None:
                size.labels(*self.request_description).observe(self.response_size)

    app.middlewares.append(hrprometheus_middleware(Monitor))


WAYS = {"full": full, "basic": basic, "full middleware": full_middleware, "custom monitor": custom}


@dataclass
class Server:
    """A server of the responses of one kind, each of which has a path of its own."""

    way: str
    handler_cancellation: bool
    scenes: dict[str, Scene]
    kind: Kind
    files: Path
    tls: ssl.SSLContext | None = None
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __str__(self) -> str:
        return self.way + (" with handler_cancellation" if self.handler_cancellation else "")

    async def start(self) -> None:
        app = web.Application(client_max_size=2**24)
        app[ends.FILES] = self.files
        app[ends.SCENES] = self.scenes
        for path in self.scenes:
            app.router.add_route("*", path, self.handle)
        WAYS[self.way](app, self.registry)
        arguments = {"access_log_class": access_log_class(app)} if self.way == "full" else {"access_log": None}
        self.runner = web.AppRunner(
            app, handler_cancellation=self.handler_cancellation, shutdown_timeout=0.05, **arguments
        )
        await self.runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        await web.SockSite(self.runner, listener, ssl_context=self.tls).start()
        self.address = listener.getsockname()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        scene = ends.scene_of(request)
        scene.request, scene.task = request, asyncio.current_task()
        return await self.kind.handler(request)

    def has_counted(self) -> bool:
        """Whether all requests have been counted, which costs less to ask than a scrape."""
        families = (family for family in self.registry.collect() if family.name == "request_count")
        counted = (sample.value for family in families for sample in family.samples if sample.name.endswith("_total"))
        return sum(counted) >= len(self.scenes)

    async def stop(self) -> dict[str | None, list[Sample]]:
        """Stop when all requests have been counted, and return what a scrape has, by paths.

        To render and parse it would take long.
        """
        with contextlib.suppress(TimeoutError):  # what is recorded then says more
            await until(self.has_counted)
        await self.runner.cleanup()
        scraped = defaultdict(list)
        for family in self.registry.collect():
            for sample in family.samples:
                scraped[sample.labels.get("path")].append(sample)
        return scraped


async def until(condition) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.001)


@dataclass
class Client:
    """A client that reads only as much as it is asked to."""

    method: str = "GET"
    heard: bytearray = field(default_factory=bytearray)
    is_over: bool = False  # whether the connection has ended

    async def connect(self, address: tuple[str, int]) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        await asyncio.get_running_loop().sock_connect(self.socket, address)

    async def ask(self, kind: Kind, path: str) -> None:
        head = f"{kind.method} {path} HTTP/{kind.version}\r\nHost: x\r\n"
        if kind.length:
            head += f"Content-Length: {kind.length}\r\n"
        body = b"0123456789" if kind.length else b""
        await self.send(head.encode() + b"\r\n" + body)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def receive(self) -> bytes:
        """Return what comes next, or nothing at the end."""
        try:
            return await asyncio.get_running_loop().sock_recv(self.socket, 2**18)
        except ConnectionError:
            return b""

    async def hear(self, is_enough) -> None:
        """Read until it is enough, or the connection has ended."""
        async with asyncio.timeout(DEADLINE):
            while not self.is_over and not is_enough():
                data = await self.receive()
                self.heard += data
                self.is_over = not data

    async def hear_all(self) -> None:
        await self.hear(lambda: False)

    @property
    def head(self) -> bytes:
        """What was heard before the body, in small letters; nothing until the body can begin."""
        end = self.heard.find(b"\r\n\r\n")
        return bytes(self.heard[: end + 4]).lower() if end >= 0 else b""

    @property
    def status(self) -> int | None:
        return int(self.head[9:12]) if self.head else None

    @property
    def content(self) -> bytes:
        """The body without the framing of chunks."""
        position = len(self.head)
        if b"chunked" not in self.head:
            return bytes(self.heard[position:]) if position else b""
        content = b""
        while (line := self.heard.find(b"\r\n", position)) >= 0:
            size = int(self.heard[position:line], 16)
            content += self.heard[line + 2 : line + 2 + size]
            position = line + 2 + size + 2
        return content

    @property
    def has_all(self) -> bool:
        """Whether the response is complete, as its framing says."""
        head = self.head
        if not head:
            return False
        if self.method == "HEAD" or self.status in (204, 304):
            return True
        if b"chunked" in head:
            return self.heard.endswith(b"\r\n0\r\n\r\n")
        if b"content-length: " in head:
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return len(self.heard) == len(head) + length
        return self.is_over

    def leave(self, *, reset: bool) -> None:
        """Close the connection, or break it off as a process that is killed may do."""
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def half_close(self) -> None:
        """End what the client sends, and go on reading."""
        self.socket.shutdown(socket.SHUT_WR)


class TlsClient(Client):
    """A client with TLS, which does not read ahead either."""

    async def connect(self, address: tuple[str, int]) -> None:
        await super().connect(address)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl._create_unverified_context()  # noqa: S323  # the certificate is for nothing but tests
        self.tls = context.wrap_bio(self.incoming, self.outgoing)
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
                break
            await super().send(self.outgoing.read())
            self.incoming.write(await super().receive())
        await super().send(self.outgoing.read())

    async def send(self, data: bytes) -> None:
        self.tls.write(data)
        await super().send(self.outgoing.read())

    async def receive(self) -> bytes:
        while True:
            try:
                return self.tls.read(2**18)
            except ssl.SSLWantReadError:
                data = await super().receive()
            except ssl.SSLZeroReturnError:
                return b""
            if not data:
                return b""
            self.incoming.write(data)

    def leave(self, *, reset: bool) -> None:
        if not reset:
            self.half_close()
        super().leave(reset=reset)

    def half_close(self) -> None:
        """Send a close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            while data := self.tls.read(2**18):  # which must be read before
                self.heard += data
        with contextlib.suppress(ssl.SSLWantReadError):  # the server's has not come yet
            self.tls.unwrap()
        self.socket.send(self.outgoing.read())


#: Kinds that meet all ends; the others, which differ from one of these in a detail, meet those by the client.
THOROUGHLY = [
    "plain", "unread upload", "large", "generated", "large file", "stream", "sized stream", "compressed stream",
    "HEAD of stream", "swallowed",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A kind of response, the moment at which its handler is stopped, and how the connection ends then."""

    name: str
    moment: str
    end: str

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    @property
    def is_wanted(self) -> bool:
        """Whether it can be, and tells more than the others."""
        if self.end not in (STAYS, CLOSES, RESETS) and self.name not in THOROUGHLY:
            return False
        if self.name == "large file" and self.end == IS_DROPPED:
            return False  # asyncio never ends its sendfile then
        if self.end in (IS_DROPPED, IS_CANCELLED) and self.moment == AFTER_HANDLER:
            return False  # it is over
        if self.name in ("upload", "unread upload") and self.end == STAYS:
            return False  # there would be no end
        # Where the end of the connection is that of the body, half a connection is no end that a client can see.
        return self.end != HALF_CLOSES or self.kind.version == "1.1"

    def __str__(self) -> str:
        return f"{self.name}, {self.moment}, {self.end}"


CASES = [
    case
    for name, kind in KINDS.items()
    for moment in kind.moments
    for end in ENDS
    if (case := Case(name, moment, end)).is_wanted
]
#: Where TLS makes a difference: its transport goes on for a while, and takes what it cannot send any more.
MOMENTS_WITH_TLS = {
    "plain": (BEFORE_HEAD,),
    "large file": (IN_DRAIN,),
    "stream": (BETWEEN_WRITES, IN_DRAIN, AFTER_LAST_WRITE, AFTER_EOF),
    "sized stream": (BETWEEN_WRITES, IN_DRAIN, AFTER_LAST_WRITE),
    "compressed stream": (BETWEEN_WRITES, AFTER_LAST_WRITE),
}
CASES_WITH_TLS = [
    Case(name, moment, end)
    for name, moments in MOMENTS_WITH_TLS.items()
    for moment in moments
    for end in (CLOSES, CLOSES_ABRUPTLY, RESETS, RESETS_UNSEEN, HALF_CLOSES)
    # A plain response is written at once, whether its client is there or not.
    if (name, end) != ("plain", RESETS_UNSEEN)
]


class Conversation:
    """One request of a case: it is made, ended, and what is recorded is compared with what is true."""

    def __init__(self, case: Case, server: Server, path: str) -> None:
        self.case, self.kind, self.server, self.path = case, case.kind, server, path
        self.scene = server.scenes[path]
        self.client = (TlsClient if server.tls else Client)(self.kind.method)

    async def run(self) -> None:
        """Make the request, and end it."""
        await self.client.connect(self.server.address)
        await self.client.ask(self.kind, self.path)
        await self.reach()
        await self.end()

    async def reach(self) -> None:
        """Reach the moment, with the client having read what it should have."""
        moment, scene, client = self.case.moment, self.scene, self.client
        if moment == AFTER_HANDLER:
            await client.hear(lambda: client.has_all)
            assert client.has_all
        elif moment == IN_DRAIN and self.kind.is_file and self.server.tls:
            await until(lambda: scene.request and scene.request.transport.get_write_buffer_size())
        elif moment == IN_DRAIN and self.kind.is_file:
            await client.hear(lambda: client.heard)  # the operating system sends it, and tells nobody how far it is
        elif moment == IN_DRAIN:
            await until(lambda: scene.is_in_drain)
        else:
            async with asyncio.timeout(DEADLINE):
                await scene.reached.wait()
            if self.kind.is_whole(moment) and self.kind.version == "1.1":
                await client.hear(lambda: client.has_all)
                assert client.has_all
            elif moment != BEFORE_HEAD:
                await client.hear(
                    lambda: client.head and (self.kind.is_compressed or len(client.content) >= scene.handed)
                )

    async def end(self) -> None:
        """End the connection, and let the handler go on when the server has seen it."""
        end, scene, client = self.case.end, self.scene, self.client
        if end == IS_SHUT_DOWN:
            await self.server.runner.cleanup()
        elif end == IS_CANCELLED:
            scene.task.cancel()
        elif end == IS_DROPPED:
            scene.request.transport.abort()
        elif end == RESETS_UNSEEN:
            client.leave(reset=True)
        elif end in (CLOSES, CLOSES_ABRUPTLY, RESETS):
            if end == CLOSES_ABRUPTLY:
                client.socket.close()
            else:
                client.leave(reset=end == RESETS)
            if not self.kind.is_file:
                await until(lambda: not scene.is_open)
        elif end == HALF_CLOSES:
            client.half_close()
            hearing = asyncio.create_task(client.hear_all())
            await until(lambda: not scene.is_open or hearing.done())
            scene.go_on.set()
            await hearing
        scene.go_on.set()
        if end == STAYS:
            await client.hear(lambda: client.has_all)

    def compare(self, scraped: dict[str | None, list[Sample]]) -> tuple[dict[str, object], dict[str, object]]:
        """Return what is true and what is recorded, where they differ."""
        statuses = {
            int(sample.labels["status"]): sample.value
            for sample in scraped[self.path]
            if sample.name == "request_count_total" and sample.labels["method"] == self.kind.method
        }
        recorded: Counter[str] = Counter()
        for sample in (*scraped[self.path], *scraped[None]):
            recorded[sample.name] += sample.value
        moment, end, kind, client = self.case.moment, self.case.end, self.kind, self.client
        is_whole = kind.is_whole(moment)
        if end in (STAYS, HALF_CLOSES):
            # The client has read all that there was to read: its truth is the whole truth.
            assert client.has_all or not is_whole, "what was handed over did not arrive"
            is_whole = client.has_all
            assert not is_whole or client.status == kind.status
            assert is_whole or end == HALF_CLOSES or kind.is_broken_off
        status = kind.status if is_whole or (kind.is_broken_off and end == STAYS) else 499
        true: dict[str, object] = {
            "statuses": {status: 1},
            "in progress": 0,
            "latencies": 1,
            "errors": 0,
        }
        found: dict[str, object] = {
            "statuses": statuses,
            "in progress": recorded["requests_in_progress"],
            "latencies": recorded["request_latency_count"],
            "errors": recorded["hr_prometheus_errors_total"],
        }
        if self.server.way != "basic":
            # Before 3.12 the head of a generated body leaves before its first part is asked for.
            is_early = self.case.name == "generated" and not HEADS_ARE_BUFFERED
            true["first bytes"] = int(is_whole or moment != BEFORE_HEAD or is_early)
            found["first bytes"] = recorded["request_first_byte_latency_count"]
            size = self.handed(is_whole=is_whole)
            if size is not None and SIZES_ARE_EXACT:
                true["size"] = size
                found["size"] = recorded["response_size_bytes_sum"]
        names = [name for name in true if true[name] != found[name]]
        return {name: true[name] for name in names}, {name: found[name] for name in names}

    def handed(self, *, is_whole: bool) -> int | None:
        """Return the bytes of the body that were handed over; ``None`` if that cannot be known from here."""
        if self.case.end in (STAYS, HALF_CLOSES) and (is_whole or not self.kind.is_file):
            return len(self.client.content)
        if self.case.moment == BEFORE_HEAD:
            return 0
        if self.kind.is_compressed:
            return len(self.client.content) if self.client.has_all else None
        if self.scene.handed:
            return self.scene.handed
        if self.client.has_all:
            return len(self.client.content)
        return len(LARGE) if is_whole else None


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files that are served."""
    directory = tmp_path_factory.mktemp("files")
    ends.write_files(directory)
    return directory


# aiohttp leaves it to the garbage collector to close a file whose opening was cancelled.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
# Before 3.12 it warns of each large body that it compresses.
@pytest.mark.filterwarnings("ignore:Synchronous compression:UserWarning")
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", KINDS)
def test_a_request_is_a_499_if_its_last_byte_was_not_handed_over(name, loop, files):
    """However it is recorded and served, the status, the sizes and the gauges are those of what happened."""
    # Each way with handler_cancellation on one loop, and without it on the other.
    ways = {way: (number + (loop == "uvloop")) % 2 == 1 for number, way in enumerate(WAYS)}
    check([case for case in CASES if case.name == name], ways, loop, files)


def check(cases: list[Case], ways: dict[str, bool], loop: str, files: Path, tls: ssl.SSLContext | None = None) -> None:
    """Check that servers record what is true of cases of one kind, in *ways*, with handler_cancellation or without."""
    # A case that shuts its server down has one of its own.
    groups = [[case for case in cases if case.end != IS_SHUT_DOWN]]
    groups += [[case] for case in cases if case.end == IS_SHUT_DOWN]

    async def run() -> list[str]:
        wrong = []
        for group in groups:
            scenes = [{f"/{number}": Scene(case.moment) for number, case in enumerate(group)} for _ in ways]
            servers = map(partial(Server, kind=group[0].kind, files=files, tls=tls), ways, ways.values(), scenes)
            wrong += await asyncio.gather(*(differences(group, server) for server in servers))
        return [line for lines in wrong for line in lines]

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        wrong = runner.run(run())
    assert not wrong, "\n".join(wrong)


async def differences(cases: list[Case], server: Server) -> list[str]:
    """Return what a server records that is not true, after one case after the other."""
    await server.start()
    conversations = [Conversation(case, server, path) for case, path in zip(cases, server.scenes, strict=True)]
    for conversation in conversations:
        try:
            await conversation.run()
        except Exception as error:
            error.add_note(f"{conversation.case}: {server}")
            raise
    scraped = await server.stop()
    for conversation in conversations:
        conversation.client.socket.close()
    compared = [(conversation.case, *conversation.compare(scraped)) for conversation in conversations]
    return [f"{case}: {server}: recorded {found}, true {true}" for case, true, found in compared if found != true]


@pytest.fixture(scope="module")
def tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(APPS.parent / "tls" / "certificate.pem", APPS.parent / "tls" / "key.pem")
    context.num_tickets = 0  # which a client that closes would not have read
    return context


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", MOMENTS_WITH_TLS)
def test_the_same_with_tls(name, loop, files, tls):
    """Though its transport goes on for a while when the connection has ended."""
    ways = {"full": False, "full middleware": True}
    check([case for case in CASES_WITH_TLS if case.name == name], ways, loop, files, tls)


def scrape(service, name: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{service.metrics_url}?name[]={name}", timeout=DEADLINE) as response:
        return samples(response.read().decode())


def statuses(service, path: str) -> dict[str, float]:
    """Return how many requests of a path ended with each status."""
    found = scrape(service, "request_count_total")
    before = f'request_count_total{{method="GET",path="{path}",status="'
    return {key[len(before) : -2]: value for key, value in found.items() if key.startswith(before)}


@pytest.mark.parametrize("loop", LOOPS)
def test_curl_that_leaves_in_the_middle_of_a_stream(serve, component, loop):
    """It is a 499, though curl has read slowly so that the server had to wait in drain."""
    waiting = "a_writer_waits_for_bytes"
    service = serve("ends:create_app", "--port", "0", "--log-level", "critical", "--loop", loop)
    for _ in range(5):
        command = [component("curl"), "-sSN", "--limit-rate", "100k", service.url + "/writes"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
            assert curl.stdout.read(1) == b"x"
            wait_for(lambda: scrape(service, waiting)[waiting], lambda size: size > BUFFER)
            curl.kill()
    assert wait_for(lambda: statuses(service, "/writes"), lambda found: sum(found.values()) >= 5) == {"499": 5}


@pytest.mark.parametrize("loop", LOOPS)
def test_curl_that_has_all_and_leaves_before_the_handler_returns(serve, component, loop):
    """It is the status that was sent."""
    service = serve("ends:create_app", "--port", "0", "--log-level", "critical", "--loop", loop)
    for _ in range(20):
        subprocess.run([component("curl"), "-sSf", service.url + "/lingers"], check=True, capture_output=True)
    assert wait_for(lambda: statuses(service, "/lingers"), lambda found: sum(found.values()) >= 20) == {"200": 20}


@pytest.mark.parametrize("loop", LOOPS)
def test_curl_that_has_all_of_a_large_scrape(serve, component, loop):
    """A scrape that arrived whole is a 200, though its last bytes waited for the client to read."""
    service = serve("ends:create_app", "--port", "0", "--log-level", "critical", "--loop", loop)
    for _ in range(30):
        done = subprocess.run([component("curl"), "-sSf", service.metrics_url], check=True, capture_output=True)
        assert len(done.stdout) > 120_000
    # This one looks before it ends itself; one before it may have been asked for by the last wait.
    found = wait_for(lambda: statuses(service, "/metrics"), lambda found: sum(found.values()) >= 30)
    assert list(found) == ["200"]
