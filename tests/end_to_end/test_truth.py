"""What a client got, and what the metrics say: for every kind of response, in every way to serve.

Each case is one request that a client makes again and again. The client writes down what it got: status, bytes of
the bodies, seconds. In the end the scrape must say the same.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from http.client import HTTPConnection

import pytest
from aiohttp import ClientSession, web
from aiohttp.abc import AbstractStreamWriter
from conftest import APPS, DEADLINE, clean_environment, counts, read_line, samples
from prometheus_client import CollectorRegistry, generate_latest

from hr_prometheus import access_log_class, instrument

sys.path.insert(0, str(APPS))
from responses import create_app

ROUNDS = 5
#: aiohttp from 3.14.4 on; see docs/how-to/library.md.
WRITES_ARE_TOLD = hasattr(AbstractStreamWriter, "on_body_write")


@dataclass(frozen=True)
class Case:
    """One request: what is asked, what must be answered, and under which label it is recorded."""

    label: str
    status: int
    path: str = ""
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    chunked: bool = False
    waits: float = 0.0  # seconds, of the handler or of the body that is made while it is sent


GZIPPED = gzip.compress(b"hello, world" * 100)
CASES = [
    Case("/text", 200),
    Case("/text", 200, method="HEAD"),
    Case("/text", 200, path="/text?query=1"),
    Case("/empty", 204),
    Case("/not-modified", 304),
    Case("/echo", 200, method="POST", body=b"x" * 10),
    Case("/echo", 200, method="POST", body=b"x" * 300_000),
    Case("/echo", 200, method="POST", body=b"x" * 5000, chunked=True),
    Case("/echo", 200, method="POST", body=b""),
    Case("/echo", 200, method="POST", body=b"x" * 100, headers={"Expect": "100-continue"}),
    Case("/unread", 200, method="POST", body=b"x" * 1000),
    Case("/unread", 200, method="POST", body=b"x" * 500_000),
    Case("/status/200", 200),
    Case("/status/503", 503),
    Case("/raise/302", 302),
    Case("/raise/404", 404),
    Case("/raise/403", 403),
    Case("/error", 500),
    Case("/timeout", 504),
    Case("/nothing", 500),
    Case("/compressed", 200),
    Case("/stream", 200),
    Case("/stream-compressed", 200),
    Case("/stream-compressed-eof", 200),
    Case("/stream-sized", 200),
    Case("/stream-paused", 200, waits=0.05),
    Case("/lazy", 200, waits=0.015),
    Case("/lazy-compressed", 200, waits=0.015),
    Case("/replaced", 418),
    Case("/file/small.txt", 200),
    Case("/file/big.bin", 200),
    Case("/file/big.bin", 206, headers={"Range": "bytes=100-5099"}),
    Case("/file/big.bin", 416, headers={"Range": "bytes=99999999-"}),
    Case("/file/small.txt", 304, headers={"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}),
    Case("/file/big.bin", 200, method="HEAD"),
    Case("/file/none", 404),
    Case("/file-compressed", 200),
    Case("/static/{filename}", 200, path="/static/small.txt"),
    Case("/static/{filename}", 206, path="/static/big.bin", headers={"Range": "bytes=-7"}),
    Case("/static/{filename}", 404, path="/static/none"),
    Case("unmatched", 404, path="/nowhere"),
    Case("unmatched", 405, path="/text", method="DELETE"),
]


class Client:
    """A client which writes down what it got."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.sent: Counter[tuple[str, str]] = Counter()
        self.received: Counter[tuple[str, str]] = Counter()
        self.seconds: Counter[tuple[str, str]] = Counter()
        self.waits: Counter[tuple[str, str]] = Counter()

    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def ask(self, connection: HTTPConnection, case: Case) -> None:
        """Make a request and take its answer, both byte by byte as they are."""
        body = iter([case.body[:1000], case.body[1000:]]) if case.chunked else case.body
        headers = {"Content-Type": "text/plain", **case.headers} if case.body is not None else case.headers
        begun = time.perf_counter()
        connection.request(case.method, case.path or case.label, body, headers, encode_chunked=case.chunked)
        with connection.getresponse() as response:
            answer = response.read()
        labels = (case.method, case.label)
        assert response.status == case.status, case
        self.seconds[labels] += time.perf_counter() - begun
        self.waits[labels] += case.waits
        self.counts[*labels, str(response.status)] += 1
        self.sent[labels] += len(case.body or b"")
        self.received[labels] += len(answer)

    def ask_all(self) -> None:
        connection = HTTPConnection(*self.address(), timeout=DEADLINE)
        for _ in range(ROUNDS):
            for case in CASES:
                self.ask(connection, case)
        connection.close()


def check(client: Client, scrape: str) -> None:
    """Compare what the client got with what the metrics say."""
    found = samples(scrape)
    for (method, path), seconds in client.seconds.items():
        labels = f'{{method="{method}",path="{path}"}}'
        number = sum(count for key, count in client.counts.items() if key[:2] == (method, path))
        sent = found[f"response_size_bytes_sum{labels}"]
        if WRITES_ARE_TOLD:
            assert sent == client.received[method, path], labels
        else:  # the framing of chunks is not known
            assert client.received[method, path] <= sent <= client.received[method, path] * 1.2 + 20 * number, labels
        assert found[f"request_size_bytes_sum{labels}"] == client.sent[method, path], labels
        for histogram in ("request_latency", "request_first_byte_latency", "response_size_bytes", "request_size_bytes"):
            assert found[f"{histogram}_count{labels}"] == number, (histogram, labels)
        # At least what the handler or its body waits; at most what the client has seen, but for a busy machine.
        assert client.waits[method, path] <= found[f"request_latency_sum{labels}"] < seconds + 0.1 * number, labels
        assert found[f"request_first_byte_latency_sum{labels}"] <= found[f"request_latency_sum{labels}"]
    assert all(value == 0 for key, value in found.items() if "in_progress" in key and 'path="/metrics"' not in key)
    assert not [key for key in found if key.startswith("hr_prometheus_errors")]


async def settled(scrape, client: Client) -> str:
    """Return a scrape in which all of the client's requests have ended; they end just after their last byte."""
    async with asyncio.timeout(DEADLINE):
        while True:
            text = await scrape()
            received = sum(value for key, value in samples(text).items() if key.startswith("request_size_bytes_count"))
            if counts(text) == client.counts and received >= sum(client.counts.values()):
                return text
            await asyncio.sleep(0.05)


@pytest.fixture
def http_get():
    """Get a text over HTTP, outside the loop."""

    async def get(url: str) -> str:
        async with ClientSession() as session, session.get(url) as response:
            return await response.text()

    return get


async def check_in_process(registry: CollectorRegistry, url: str) -> None:
    client = Client(url)
    await asyncio.to_thread(client.ask_all)

    async def scrape() -> str:
        return generate_latest(registry).decode()

    check(client, await settled(scrape, client))


@pytest.mark.parametrize("handler_cancellation", [False, True])
@pytest.mark.parametrize("access_log", [False, True])
async def test_numbers_are_true_under_an_app_runner(registry, handler_cancellation, access_log):
    """A bare AppRunner, with access logs on and off, with handlers cancelled when clients leave and not."""
    app = instrument(create_app(), registry=registry)
    arguments = {"access_log": None} if not access_log else {"access_log_class": access_log_class(app)}
    runner = web.AppRunner(app, handler_cancellation=handler_cancellation, **arguments)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        await check_in_process(registry, "http://{}:{}".format(*runner.addresses[0]))
    finally:
        await runner.cleanup()


async def test_numbers_are_true_under_pytest_aiohttp(aiohttp_server, registry):
    """The test server of aiohttp, as pytest-aiohttp gives it."""
    server = await aiohttp_server(instrument(create_app(), registry=registry))
    await check_in_process(registry, str(server.make_url("")).rstrip("/"))


@pytest.mark.parametrize("option", ["--handler-cancellation", "--no-handler-cancellation"])
async def test_numbers_are_true_under_the_command(serve, http_get, option):
    """hr-prometheus run, with handlers cancelled when clients leave and not."""
    service = serve("responses:create_app", "--port", "0", "--log-level", "critical", option)
    client = Client(service.url)
    await asyncio.to_thread(client.ask_all)
    check(client, await settled(lambda: http_get(service.metrics_url), client))


@pytest.fixture
def started():
    """Start a server of another kind, and read from its output where it is."""
    processes = []

    def start(*arguments: str) -> str:
        process = subprocess.Popen(
            [sys.executable, "-u", *arguments], cwd=APPS, env=clean_environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        processes.append(process)
        while True:
            found = re.search(r"(http://127\.0\.0\.1:\d+)", read_line(process))
            if found:
                return found[1]

    yield start
    for process in processes:
        process.terminate()
        process.communicate(timeout=DEADLINE)


@pytest.mark.parametrize(
    "arguments",
    [
        ["responses_as_library.py"],
        ["-m", "gunicorn", "responses_as_library:create_instrumented_app()", "--bind", "127.0.0.1:0",
         "--worker-class", "aiohttp.GunicornWebWorker", "--log-level", "info"],
    ],
    ids=["web.run_app", "gunicorn"],
)  # fmt: skip
async def test_numbers_are_true_under_servers_of_others(started, http_get, arguments):
    """web.run_app in a script of the user's, and gunicorn with aiohttp's worker."""
    client = Client(await asyncio.to_thread(started, *arguments))
    await http_get(client.url + "/metrics")  # gunicorn listens before its worker serves
    await asyncio.to_thread(client.ask_all)
    check(client, await settled(lambda: http_get(client.url + "/metrics"), client))
