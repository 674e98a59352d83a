"""The forks that tests start in the place of new processes."""

from __future__ import annotations

import json
import socket

import pytest
from conftest import RUN

FACTS = r"""
import json, os, re, resource, signal, sys
from pathlib import Path
from aiohttp import web
from prometheus_client import values

def kind(link):
    try:
        return re.sub(r"(?<=/hr-prometheus-)\d+-\w+|\d+", "N", os.readlink(link))
    except OSError:  # the one that lists them
        return None

def shown(name):
    return Path("/proc/self", name).read_text().rstrip("\0").split("\0")

facts = {
    "arguments": sys.argv,
    "descriptors": sorted((kind(each), os.get_inheritable(int(each.name))) for each in Path("/proc/self/fd").iterdir() if kind(each)),
    "directory": os.getcwd(),
    "environment": {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"},
    "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")},
    "path": sys.path,
    "signals": [getattr(handler := signal.getsignal(each), "__qualname__", str(handler)) for each in sorted(signal.valid_signals())],
    "signals, to the system": re.findall(r"(Sig(?:Blk|Ign|Cgt)):\s(\w+)", Path("/proc/self/status").read_text()),
    "streams": [(each.line_buffering, each.write_through, each.isatty()) for each in (sys.stdin, sys.stdout, sys.stderr)],
    "umask": os.umask(0o22),
    "writes no bytecode": sys.dont_write_bytecode,
    "value class": values.ValueClass.__qualname__,
}
if len(sys.argv) == 4:  # a worker
    facts |= {
        "is child of the command": os.getppid() == int(Path("pid").read_text()),
        "is leader": (os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()),
        "shown command line": shown("cmdline"),
        "shown environment": sorted(shown("environ")),
    }
Path("facts").write_text(json.dumps(facts))
app = web.Application()
"""


@pytest.fixture
def tcp():
    """A socket that is bound."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


@pytest.mark.parametrize("arguments", [(), ("--workers", "1"), ("--reload",)], ids=str)
def test_they_are_as_new_processes(serve, tmp_path, tcp, arguments):
    """Their session, parent, descriptors, limits, signals, environment and command line are those that they would have."""
    (tmp_path / "facts.py").write_text(FACTS)
    arguments = ("facts:app", "--fd", str(tcp.fileno()), "--pid-file", "pid", *arguments)
    changes = {"A": "b", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "more:"}
    facts = []
    for command in ((), RUN):
        assert serve(*arguments, cwd=tmp_path, command=command, pass_fds=(tcp.fileno(),), **changes).stop()[0] == 0
        facts.append(json.loads((tmp_path / "facts").read_text()))
    assert facts[0] == facts[1]
