"""What aiohttp may rename: each name of its own that we use, one at a time, in a copy of it. Every request is still answered."""

from __future__ import annotations

import ast
import re
import shutil
import signal
import socket
from collections import Counter
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import aiohttp
import pytest
from conftest import DEADLINE, Service, counts, new_forks, read_line, unmeasured_environment, wait_for

import hr_prometheus

AIOHTTP = Path(aiohttp.__file__).parent
#: Public names of the writer, at which a response is observed.
SEAMS = ("write_headers", "send_headers", "write_eof", "on_body_write")

_CLOSE = b"Host: x\r\nConnection: close\r\n"
_UPGRADE = (
    b"GET /websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
#: A request of each kind.
REQUESTS = {
    "plain": b"GET /text HTTP/1.1\r\n" + _CLOSE + b"\r\n",
    "HTTP/1.0": b"GET /text HTTP/1.0\r\n\r\n",
    "HEAD": b"HEAD /text HTTP/1.1\r\n" + _CLOSE + b"\r\n",
    "no content": b"GET /empty HTTP/1.1\r\n" + _CLOSE + b"\r\n",
    "parameter": b"GET /status/201 HTTP/1.1\r\n" + _CLOSE + b"\r\n",
    "two": b"GET /text HTTP/1.1\r\nHost: x\r\n\r\nGET /lazy HTTP/1.1\r\n" + _CLOSE + b"\r\n",
    "raised": b"GET /raise/403 HTTP/1.1\r\n" + _CLOSE + b"\r\n",
    "error": b"GET /error HTTP/1.1\r\n" + _CLOSE + b"\r\n",
    "no response": b"GET /nothing HTTP/1.1\r\n" + _CLOSE + b"\r\n",
    "compressed": b"GET /compressed HTTP/1.1\r\n" + _CLOSE + b"\r\n",
    "stream": b"GET /stream-sized HTTP/1.1\r\n" + _CLOSE + b"\r\n",
    "lazy": b"GET /lazy HTTP/1.1\r\n" + _CLOSE + b"\r\n",
    "broken stream": b"GET /stream-fails HTTP/1.1\r\n" + _CLOSE + b"\r\n",
    "replaced": b"GET /replaced HTTP/1.1\r\n" + _CLOSE + b"\r\n",
    "file": b"GET /file/big.bin HTTP/1.1\r\n" + _CLOSE + b"\r\n",
    "range": b"GET /static/small.txt HTTP/1.1\r\n" + _CLOSE + b"Range: bytes=2-4\r\n\r\n",
    "no file": b"GET /static/none HTTP/1.1\r\n" + _CLOSE + b"\r\n",
    "not routed": b"GET /nowhere HTTP/1.1\r\n" + _CLOSE + b"\r\n",
    "wrong method": b"DELETE /text HTTP/1.1\r\n" + _CLOSE + b"\r\n",
    "POST": b"POST /echo HTTP/1.1\r\n" + _CLOSE + b"Content-Length: 4\r\n\r\nbody",
    "not read": b"POST /unread HTTP/1.1\r\n" + _CLOSE + b"Content-Length: 4\r\n\r\nbody",
    "expectation": b"POST /echo HTTP/1.1\r\n" + _CLOSE + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\nbody",
    "refused expectation": b"POST /echo HTTP/1.1\r\n" + _CLOSE + b"Expect: wonders\r\nContent-Length: 0\r\n\r\n",
    "malformed": b"GET / HTTP/x.y\r\n\r\n",
    "websocket": _UPGRADE + b"\x81\x82\0\0\0\0hi\x88\x82\0\0\0\0\x03\xe8",
    "websocket that the server closes": _UPGRADE + b"\x81\x85\0\0\0\0close\x88\x82\0\0\0\0\x0f\xa1",
    "websocket that fails": _UPGRADE + b"\x81\x84\0\0\0\0fail",
}
#: Code that runs the application with runners of its own, without the command.
RUNNERS = "import runpy\nrunpy.run_module('responses_by_runners', run_name='__main__')\n"
#: The private names of aiohttp that the package uses.
NAMES = [
    "_current_request",
    "_getframe",
    "_kwargs",
    "_messages",
    "_prepare_hook",
    "_request_in_progress",
    "_task_handler",
    "_waiter",
]
SLOTS = "all but the slots of StreamWriter"
SLOTS_ALONE = f"{SLOTS}, and on_body_write"


#: What the requests are counted as, where nothing is renamed.
COUNTED = Counter(
    {
        ("GET", "/text", "200"): 3,
        ("HEAD", "/text", "200"): 1,
        ("GET", "/empty", "204"): 1,
        ("GET", "/status/201", "201"): 1,
        ("GET", "/lazy", "200"): 2,
        ("GET", "/raise/403", "403"): 1,
        ("GET", "/error", "500"): 1,
        ("GET", "/nothing", "500"): 1,
        ("GET", "/compressed", "200"): 1,
        ("GET", "/stream-sized", "200"): 1,
        ("GET", "/stream-fails", "202"): 1,
        ("GET", "/replaced", "418"): 1,
        ("GET", "/file/big.bin", "200"): 1,
        ("GET", "/static/{filename}", "206"): 1,
        ("GET", "/static/{filename}", "404"): 1,
        ("GET", "unmatched", "404"): 1,
        ("DELETE", "unmatched", "405"): 1,
        ("POST", "/echo", "200"): 2,
        ("POST", "/echo", "417"): 1,
        ("POST", "/unread", "200"): 1,
        ("unknown", "malformed", "400"): 1,
        ("GET", "/websocket", "101"): 3,
    }
)
#: The sentences that say that there is less to see.
WARNING = r"not all of a request can be recorded|Recording a request failed"
NUMBER_OF_WARNINGS = {"write_headers": 1, "write_eof": 1, "BaseRequest.task": 1, SLOTS: 1, SLOTS_ALONE: 1}


def known(name: str, *, is_script: bool) -> Counter[tuple[str, str, str]]:
    """Return what is counted where *name* is another."""
    found = COUNTED.copy()
    if name == "_kwargs" and is_script:  # the script's runner has another access log
        found -= Counter([("POST", "/echo", "417"), ("unknown", "malformed", "400")])
    if name in {SLOTS, SLOTS_ALONE}:  # what the middleware has seen cannot be marked for the access log
        found -= Counter([("POST", "/echo", "417")])
    if name in {"write_headers", SLOTS, SLOTS_ALONE}:  # the head of a stream that fails is unknown
        found.update([("GET", "/stream-fails", "500")])
        found -= Counter([("GET", "/stream-fails", "202")])
    if name == "BaseRequest.task":  # what the preparation of a file decides is unknown
        found.update([("GET", "/static/{filename}", "200")] * 2)
        found -= Counter([("GET", "/static/{filename}", "206"), ("GET", "/static/{filename}", "404")])
    return found


def private_names() -> set[str]:
    """Return the private names of aiohttp that the source of the package uses, as attributes or as strings."""
    text = "".join(path.read_text() for path in AIOHTTP.rglob("*.py"))
    private = set(re.findall(r"\b_[a-z][a-z_]+\b", text))
    used, own = set(), set()
    for path in Path(hr_prometheus.__file__).parent.rglob("*.py"):
        source = path.read_text()
        if private.isdisjoint(re.findall(r"\b_[a-z][a-z_]+\b", source)):  # which takes less time than to parse it
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute):
                is_own = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
                (own if is_own else used).add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                used.add(node.value)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                own.add(node.name)
    return private & (used - own)


def change(directory: Path, name: str) -> None:
    """Change *name* in a copy of aiohttp; skip the test if this aiohttp has nothing of that name."""

    def substitute(file: str, *changes: tuple[str, str]) -> None:
        path = directory / file
        text = path.read_text()
        for pattern, replacement in changes:
            text, number = re.subn(pattern, replacement, text)
            if not number and len(changes) > 1:
                pytest.skip("this aiohttp is written in another way")
        if text != path.read_text():  # else it stays compiled
            path.write_text(text)

    if name == SLOTS_ALONE:
        change(directory, SLOTS)
        change(directory, "on_body_write")
    elif name == "BaseRequest.task":
        substitute("web_request.py", (r"\bdef task\b", "def renamed_task"))
    elif name == SLOTS:
        substitute("abc.py", (r'("""Abstract stream writer."""\n)', r"\1\n    __slots__ = ()\n"), ("", ""))
        substitute(
            "http_writer.py",
            (
                r"(class StreamWriter\(AbstractStreamWriter\):\n\n)(?:    \w+: .*\n)+",
                r"\1    __slots__ = ('buffer_size', 'output_size', 'length', 'chunked', '_eof', '_compress', '_protocol', "
                r"'loop', '_on_chunk_sent', '_on_headers_sent', '_headers_buf', '_headers_written')\n",
            ),
            (
                r"self\.on_body_write = None\n",
                "self.buffer_size = self.output_size = 0\n        self.length = self._compress = None\n"
                "        self.chunked = self._eof = False\n",
            ),
        )
    else:
        for path in directory.rglob("*.py"):
            substitute(str(path.relative_to(directory)), (rf"\b{name}\b", f"renamed{name}"))


def answer(address: tuple[str, int], request: bytes) -> bytes:
    """Return all that a server sends for *request*, without what depends on the moment."""
    with socket.create_connection(address, timeout=DEADLINE) as connection:
        connection.sendall(request)
        received = b""
        while part := connection.recv(65536):
            received += part
    return re.sub(rb"(?mi)^(Date|Etag|Last-Modified): .*\r\n", b"", received)


def answers(url: str) -> dict[str, bytes]:
    """Return the answers to all requests."""
    parts = urlsplit(url)
    return {kind: answer((parts.hostname, parts.port), request) for kind, request in REQUESTS.items()}


def scrape(url: str) -> dict[tuple[str, str, str], float]:
    """Return the requests that are counted when all have ended."""

    def read() -> str:
        with urlopen(f"{url}/metrics", timeout=DEADLINE) as response:
            return response.read().decode()

    return counts(
        wait_for(read, lambda text: not re.search(r'(?m)^requests_in_progress{.*path="(?!/metrics).* [^0]', text))
    )


def stop_in_progress(service: Service) -> tuple[int, str, str]:
    """Stop a server while it answers a request, which is answered all the same."""
    parts = urlsplit(service.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=DEADLINE) as connection:
        connection.sendall(b"GET /stream-paused HTTP/1.1\r\n" + _CLOSE + b"\r\n")
        received = b""
        while b"first" not in received:
            received += connection.recv(100)
        service.process.send_signal(signal.SIGTERM)
        while part := connection.recv(100):
            received += part
    assert received.endswith(b"second\r\n0\r\n\r\n")
    ended = service.end()
    assert ended[0] == 0
    return ended


@pytest.fixture
def start(serve, tmp_path, name):
    """A function that starts the command in a fork of a process that has imported the changed copy of aiohttp."""
    shutil.copytree(AIOHTTP, tmp_path / "aiohttp", ignore=shutil.ignore_patterns("*.so"))
    change(tmp_path / "aiohttp", name)
    changed = {"PYTHONPATH": str(tmp_path), "AIOHTTP_NO_EXTENSIONS": "1"}
    with new_forks(unmeasured_environment(**changed)) as forks:
        yield partial(serve, forks=forks, is_measured=False, **changed)


def test_no_name_is_forgotten():
    """Each private name of aiohttp that the package uses is renamed."""
    assert private_names() <= set(NAMES)


@pytest.mark.parametrize("name", [*NAMES, *SEAMS, "BaseRequest.task", SLOTS, SLOTS_ALONE])
def test_every_request_is_answered_if_aiohttp_renames(start, name):
    """The answers are those of the bare application, a scrape works, and one warning says that there is less to see."""
    by_itself = start(first=RUNNERS)
    by_run = start("responses:create_app", "--port", "0")
    as_script = start("responses_by_runners.py")
    while as_script.announcement.startswith("hr-prometheus: "):  # before the script's own line, or behind it
        as_script.announcement = read_line(as_script.process)
    bare, instrumented = by_itself.announcement.split()[1:]
    expected = answers(bare)
    assert all(expected.values())
    for service, url in (by_itself, instrumented), (by_run, by_run.url), (as_script, as_script.announcement.split()[1]):
        assert answers(url) == expected
        assert scrape(url) == known(name, is_script=service is as_script)
        _, _, errors = stop_in_progress(service) if service is by_run else service.stop()
        assert len(re.findall(WARNING, errors)) == NUMBER_OF_WARNINGS.get(name, 0), errors
        assert "Exception in callback" not in errors
