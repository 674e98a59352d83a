"""What the tests share: a registry of their own, reading a scrape, starting the command, and a real Prometheus."""

from __future__ import annotations

import asyncio
import atexit
import functools
import gc
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import hypothesis.strategies
import pytest
from aiohttp import web
from authority import Authority
from command_forks import Forks
from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.parser import text_string_to_metric_families

from hr_prometheus import hrprometheus_middleware, instrument
from hr_prometheus.buckets import LatencyBuckets
from hr_prometheus.multiprocess.reader import ValueCollector
from hr_prometheus.observability.objectives import ServiceLevels, objectives_of, parse_objectives
from hr_prometheus.observability.promql import ApplicationMetrics
from hr_prometheus.observability.route_table import rows_of
from hr_prometheus.request.records import Records
from hr_prometheus.settings import Settings
from hr_prometheus.store.files import FileAllocator
from hr_prometheus.store.store import allocators
from hr_prometheus.written_forms import available_processors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.core import Metric

    from hr_prometheus.observability.route_table import Row

hypothesis.settings.register_profile("patient", deadline=None)  # a machine may be busy
hypothesis.settings.load_profile("patient")

#: The characters that UTF-8 can write, as is hypothesis' default: which it would make in seconds, in each new checkout.
CHARACTERS = hypothesis.strategies.characters(exclude_categories=["Cs"])

APPS = Path(__file__).parent / "apps"
#: Seconds within which anything a test waits for must have happened, on a machine that is busy with something else.
DEADLINE = 60.0
#: The files whose commands run without coverage, which would take longer than these tests and reach no other lines.
UNMEASURED = {"test_config_file", "test_messages"}
#: The Debian packages of the programs that some tests need.
PACKAGES = {
    "chromedriver": "chromium-driver",
    "chromium": "chromium",
    "curl": "curl",
    "nginx": "nginx-light",
    "openssl": "openssl",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "systemd-analyze": "systemd",
}
#: The command as a user types it, in a process of its own.
RUN = (sys.executable, "-m", "hr_prometheus", "run")
#: The lines of a start that is slow, as it may be on such a machine.
SLOW_START = ("Starting: waiting for ", "Reloading: waiting for ")

#: The variables of Python that a fork of the command heeds.
FORKED_VARIABLES = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}

T = TypeVar("T")
#: What all tests share is closed at the end.
_OPEN = ExitStack()
atexit.register(_OPEN.close)
#: So many files may stay open after a test: those of a browser or a server that several tests share.
_SHARED_FILES = 30


@pytest.fixture(autouse=True)
def files_are_closed() -> Iterator[None]:
    """Fail a test that leaves many files open: thousands of tests share a process, and ``select`` ends at 1024."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    left = len(os.listdir("/proc/self/fd")) - before
    assert left <= _SHARED_FILES, f"the test has left {left} files open"


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry in which nothing is registered."""
    return CollectorRegistry()


def samples(text: str) -> dict[str, float]:
    """Return what a scrape says, keyed as it is written: ``name{label="value"}``, labels sorted."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def counts(text: str) -> dict[tuple[str, str, str], float]:
    """Return the requests counted in a scrape, keyed ``(method, path, status)``, without those of scrapes."""
    lines = [line for line in text.splitlines(keepends=True) if line.startswith("request_count_total{")]
    return {
        (sample.labels["method"], sample.labels["path"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families("".join(lines))  # the parser is slow, and many tests wait with it
        for sample in family.samples
        if sample.labels["path"] != "/metrics"
    }


def basic(registry: CollectorRegistry) -> web.Application:
    """An application with the middleware as it is."""
    return web.Application(middlewares=[hrprometheus_middleware(registry=registry)])


def full(registry: CollectorRegistry) -> web.Application:
    """An application with the middleware in full detail."""
    return web.Application(middlewares=[hrprometheus_middleware(registry=registry, detail="full")])


def instrumented(registry: CollectorRegistry) -> web.Application:
    """An application that :func:`hr_prometheus.instrument` has got."""
    return instrument(web.Application(), registry=registry, metrics_path=None)


#: Each of our ways to record.
APPLICATIONS = [basic, full, instrumented]


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.001)


async def settled(registry: CollectorRegistry) -> dict[str, float]:
    """Wait until nothing is in progress, and return all samples."""
    text = ""

    def is_settled() -> bool:
        nonlocal text
        text = generate_latest(registry).decode()
        return bool(text) and not re.search(r"(?m)^requests_in_progress.* (?!0\.0$)\S+$", text)

    await until(is_settled)
    return samples(text)


async def counted(registry: CollectorRegistry) -> dict[tuple[str, str, str], float]:
    """Wait until nothing is in progress, and return the requests that were counted."""
    await settled(registry)
    return counts(generate_latest(registry).decode())


class FamiliesCollector:
    """A custom collector, which yields what it is given and raises what it is given."""

    def __init__(self, *families: Metric | Exception) -> None:
        self.families = families

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        for family in self.families:
            if isinstance(family, Exception):
                raise family
            yield family


def read_files(directory: str) -> dict[str, float]:
    """Return the samples in the files of prometheus_client, keyed by name and labels."""
    collector = ValueCollector(directory)
    values = {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in collector.collect()
        for sample in family.samples
    }
    collector.close()
    return values


def count(record, status: int, seconds: float) -> None:
    """Count a request with its *status* and its duration."""
    record.begin()
    record.finish(str(status), seconds)


@contextmanager
def in_another_thread(function: Callable[[], object]) -> Iterator[None]:
    """Call a function again and again in another thread, which takes turns with this one as often as can be."""
    is_over, interval = threading.Event(), sys.getswitchinterval()

    def repeat() -> None:
        while not is_over.is_set():
            function()

    thread = threading.Thread(target=repeat)
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        sys.setswitchinterval(interval)


def clean_environment(**changes: str) -> dict[str, str]:
    """Return an environment in which nothing configures the command but *changes*."""
    ours = ("HR_PROMETHEUS", "PROMETHEUS", "COLUMNS", "MAKE", "MFLAGS")  # make says more where make has called it
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    # aiohttp reads the authorities of TLS when it is imported, which takes a sixth of the time of a start.
    no_authorities = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
    return {**kept, **no_authorities, "PYTHONUNBUFFERED": "1", **changes}


def unmeasured_environment(**changes: str) -> dict[str, str]:
    """Return :func:`clean_environment` without coverage, for what is timed, counted or interrupted."""
    return {name: value for name, value in clean_environment(**changes).items() if not name.startswith("COVERAGE")}


def has_workers(arguments: Sequence[str]) -> bool:
    """Whether a command with these arguments starts workers."""
    return any(each.startswith(("--workers", "--reload")) for each in arguments)


class ForkedCommand:
    """A command in a fork, to be used as a :class:`subprocess.Popen` with pipes, which it inherits with *pass_fds*.

    These may be a mapping, from the numbers that they have in the command.
    Its standard output may be a descriptor instead, or be closed with ``None``. *first* is code that it runs first.
    """

    def __init__(
        self, forks: Forks, arguments: Sequence[str], cwd: Path, env: dict[str, str],
        *, output: int | str | None = "pipe", pass_fds: Sequence[int] | dict[int, int] = (), first: str = "",
    ) -> None:  # fmt: skip
        pipes = [os.pipe() for _ in range(3)]
        self._end, self.stdout, self.stderr = (os.fdopen(reader) for reader, _ in pipes)
        end, out, err = (writer for _, writer in pipes)
        passed = pass_fds if isinstance(pass_fds, dict) else {each: each for each in pass_fds}
        descriptors = {"end": end, 1: out if output == "pipe" else output, 2: err, **passed}
        self.pid = forks.start(
            "hr_prometheus", arguments, {name: each for name, each in descriptors.items() if each is not None},
            directory=str(cwd), environment=env, first=first, has_workers=has_workers(arguments),
        )  # fmt: skip
        self.returncode: int | None = None
        for _, writer in pipes:
            os.close(writer)

    def poll(self) -> int | None:
        """Return the exit code, if it has ended."""
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code."""
        if self._wait(timeout) is None:
            raise subprocess.TimeoutExpired("hr-prometheus", timeout)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end, and return what has been printed and was not read."""
        texts = {self.stdout: "", self.stderr: ""}
        readers = [
            threading.Thread(target=lambda file=file: texts.update({file: file.read()}), daemon=True)
            for file in texts
            if not file.closed
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired("hr-prometheus", timeout)
        self.wait(timeout)
        out, err = (texts[file] for file in (self.stdout, self.stderr))
        for file in (self._end, self.stdout, self.stderr):
            file.close()
        return out, err

    def send_signal(self, number: int) -> None:
        """Send a signal, if it has not ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # its exit code is on its way
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None and wait([self._end], timeout):
            self.returncode = int(self._end.readline())
        return self.returncode


@contextmanager
def new_forks(environment: dict[str, str]) -> Iterator[Forks]:
    """A process that forks commands; see ``command_forks.py``. Python and the libraries read *environment* when they start."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("command_forks.py"), str(theirs.fileno()), "-" * 2000],
        env={**environment, "ROOM": "-" * 20_000}, pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    theirs.close()
    try:
        yield Forks(ours)
    finally:
        ours.close()
        process.wait()


@functools.cache
def command_forks(*, is_measured: bool, **changes: str) -> Forks:
    """The process of all tests that forks commands, with coverage if that is on, or without.

    *changes* are the variables that Python and the libraries read when they start.
    """
    environment = clean_environment if is_measured else unmeasured_environment
    return _OPEN.enter_context(new_forks(environment(**changes)))


def start_command(
    *arguments: str,
    cwd: Path = APPS,
    is_measured: bool | None = None,
    pass_fds: Sequence[int] | dict[int, int] = (),
    first: str = "",
    forks: Forks | None = None,
    **changes: str,
) -> subprocess.Popen[str] | ForkedCommand:
    """Start the command, in a fork unless Python or a library reads one of the changed variables at its own start.

    *is_measured* says whether with coverage; by default that depends on the file of the test. It is one of *forks*, if given.
    """
    if is_measured is None:
        is_measured = Path(os.environ.get("PYTEST_CURRENT_TEST", "").split("::")[0]).stem not in UNMEASURED
    environment = clean_environment(**changes) if is_measured else unmeasured_environment(**changes)
    early = {name for name in changes if name.startswith(("PYTHON", "PROMETHEUS", "AIOHTTP"))} - FORKED_VARIABLES
    has_own = early == {"PROMETHEUS_MULTIPROC_DIR"} and has_workers(arguments)  # which get a directory of their own
    if forks is None and (has_own or not early):
        forks = command_forks(is_measured=is_measured, **dict.fromkeys(early, os.devnull))
    if forks is not None:
        return ForkedCommand(forks, arguments, cwd, environment, pass_fds=pass_fds, first=first)
    assert not first
    return subprocess.Popen(
        [*RUN[:-1], *arguments], cwd=cwd, env=environment, pass_fds=pass_fds,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def hr_prometheus(*arguments: str, timeout: float = DEADLINE, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, in the directory of the test applications."""
    process = start_command(*arguments, **changes)
    try:
        out, err = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@dataclass
class Service:
    """A command that serves."""

    process: subprocess.Popen[str] | ForkedCommand
    announcement: str
    #: What it has said of its stop.
    farewell: str = ""

    @property
    def url(self) -> str:
        """Where the application is."""
        return re.search(r" on (\S+?),", self.announcement)[1]

    @property
    def metrics_url(self) -> str:
        """Where the metrics are."""
        return re.search(r"metrics on (\S+)", self.announcement)[1]

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal and return the exit code and what was printed after the announcement, without the farewell."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.end()

    def end(self) -> tuple[int, str, str]:
        """Wait for the end, and return what :meth:`stop` does."""
        out, err = self.process.communicate(timeout=DEADLINE)
        lines = out.splitlines(keepends=True)
        self.farewell = "".join(line for line in lines if message_of(line).startswith(("Stopping: ", "Stopped after ")))
        rest = [
            line for line in lines if not message_of(line).startswith(("Stopping: ", "Stopped after ", *SLOW_START))
        ]
        return self.process.returncode, "".join(rest), err


def message_of(line: str) -> str:
    """Return what a line of standard output says, which may be one of JSON."""
    return json.loads(line)["message"] if line.startswith('{"time": ') else line


def read_line(process: subprocess.Popen[str] | ForkedCommand, *, skip: str | tuple[str, ...] = SLOW_START) -> str:
    """Return the next line of a process's output that does not begin with *skip*.

    Fail with its errors if it ends or prints nothing in time.
    """
    timer = threading.Timer(DEADLINE, process.kill)
    timer.start()
    while message_of(line := process.stdout.readline()).startswith(skip):
        pass
    timer.cancel()
    if not line:
        raise AssertionError("no line was printed; errors:\n" + process.communicate()[1])
    return line


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    """Start ``hr-prometheus run`` with arguments; every started process is ended with the test.

    It warns of no blocks of the event loop unless a test asks for them: on a busy machine there are some.
    *is_measured* is that of :func:`start_command`: ``False`` for what is killed or flooded. With *pass_fds* it inherits these.
    *first* is code that it runs first.

    The command and its workers are forks of processes that have imported what they import, and are else as new ones;
    see ``command_forks.py``. A test of how a process starts gives a *command*, such as ``RUN``: it and its workers are new.
    """
    started: list[subprocess.Popen[str] | ForkedCommand] = []

    def start(
        *arguments: str, cwd: Path = APPS, command: tuple[str, ...] = (), is_measured: bool | None = None,
        **changes: object,
    ) -> Service:  # fmt: skip
        changes = {"HR_PROMETHEUS_BLOCKED_AFTER": "0.0"} | changes
        if command:
            process = subprocess.Popen(
                [*command, *arguments], pass_fds=changes.pop("pass_fds", ()),
                cwd=cwd, env=clean_environment(**changes), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
        else:
            process = start_command("run", *arguments, cwd=cwd, is_measured=is_measured, **changes)
        started.append(process)
        return Service(process, read_line(process))

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this test suite."""
    parser.addoption("--require-components", action="store_true", help="fail where a real component is missing")
    parser.addoption("--update-docs", action="store_true", help="write what the documents take from the program")


def pytest_xdist_auto_num_workers() -> int:
    """Return three times as many processes as there are processors: many tests wait for a server most of their time."""
    return available_processors() * 3


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to write one document by two processes."""
    if config.getoption("--update-docs") and config.getoption("numprocesses", None):
        raise pytest.UsageError(
            "--update-docs was given with -n, whose processes would overwrite each other. Leave out -n."
        )


def pytest_collection_finish() -> None:
    """Leave what was collected out of the search for garbage, which would take longer than many a test."""
    gc.freeze()


@pytest.fixture(scope="session")
def component(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Find a program that a test needs; without it the test is skipped, or fails if components are required."""

    def find(name: str) -> str:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
        if path is None:
            missing = f'"{name}" is not installed (Debian: apt-get install {PACKAGES[name]})'
            if request.config.getoption("--require-components"):
                pytest.fail(missing)
            pytest.skip(missing)
        return path

    return find


@pytest.fixture
def authority(component: Callable[[str], str], tmp_path: Path) -> Authority:
    """An authority whose certificates are in the test's directory."""
    return Authority(component("openssl"), tmp_path)


@pytest.fixture
def worker_records(monkeypatch, tmp_path) -> Callable[..., Records]:
    """A function that makes the records of a worker with a slot in the test's directory, as a new process would."""

    def start(slot: int, registry: CollectorRegistry | None = None, **options) -> Records:
        registry = registry or CollectorRegistry()
        monkeypatch.setitem(allocators, registry, FileAllocator(str(tmp_path / f"w{slot}")))
        return Records(registry, **options)

    return start


@pytest.fixture
def table(tmp_path: Path) -> list[Row]:
    """The route table of an application with odd routes."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/{tail:.*}", handler, name="rest", allow_head=False)
    app.router.add_get("/cells/{cell}", handler, name="cell", allow_head=False)
    app.router.add_get("/cells/first", handler, name="first", allow_head=False)
    app.router.add_put("/cells/last", handler, name="last")
    app.router.add_get(r"/num/{n:\d+}/{side}", handler, name="side", allow_head=False)
    app.router.add_get("/a.b|c (d)/%22%5C%22", handler, name="odd", allow_head=False)
    app.router.add_route("*", "/any/<x>", handler, name="any")
    app.router.add_static("/static", tmp_path, name="static")
    below = web.Application()
    below.router.add_get("/{user}", handler, name="user", allow_head=False)
    app.add_subapp("/users", below)
    settings = Settings(
        target="x",
        fixed_routes={"cell": frozenset({"cell"})},
        allow_values={"side": {"side": frozenset({"a.b", "c"})}},
    )
    return rows_of(app, settings)


def service_levels(table: Sequence[Row] = (), percentages: Sequence[str] = (), **options: object) -> ServiceLevels:
    """Return the service levels of the job ``shop`` with these objectives."""
    latency, buckets = options.pop("latency", None), options.pop("buckets", LatencyBuckets())
    latencies = {} if latency is None else {"*": latency}
    budgets = parse_objectives(percentages)
    objectives = objectives_of(budgets, table, "/metrics", latencies=latencies, buckets=buckets)
    return ServiceLevels(**{"application": ApplicationMetrics(), "job": "shop", "objectives": objectives} | options)


@contextmanager
def metrics_kept_in_files() -> Iterator[None]:
    """Close the files that metrics are made in, and forget at the end what prometheus_client was told of them."""
    opened: list[MmapedDict] = []

    def open_file(name: str) -> MmapedDict:
        opened.append(MmapedDict(name))
        return opened[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "ValueClass", values.ValueClass)
        patch.setattr(values, "MmapedDict", open_file)
        yield
    for file in opened:
        file.close()


def start_worker(directory: str, slot: int, code: str, **changes: str) -> subprocess.Popen[str]:
    """Start *code* in a process whose metrics are kept in the files of *slot*, as a worker imports an application."""
    first = (
        "from hr_prometheus.multiprocess.value_class import enter_multiprocess_mode\n"
        f"enter_multiprocess_mode({directory!r}, {slot})\n"
    )
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", first + textwrap.dedent(code)],
        env=clean_environment(**changes),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def in_worker(directory: str, slot: int, code: str, **changes: str) -> str:
    """Run *code* as :func:`start_worker` does, to its end, and return what it prints."""
    process = start_worker(directory, slot, code, **changes)
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    return out


class Prometheus:
    """A real Prometheus, which scrapes what it is told to, four times a second."""

    def __init__(self, program: str, directory: Path, *arguments: str) -> None:
        self._directory = directory
        self._jobs: dict[str, dict[str, object]] = {}
        self._rules: list[str] = []
        self._configure()
        self._log = (directory / "log").open("w+")
        self.process = subprocess.Popen(
            [
                program, f"--config.file={directory / 'prometheus.json'}", f"--storage.tsdb.path={directory / 'data'}",
                "--web.listen-address=127.0.0.1:0", "--web.enable-lifecycle", *arguments,
            ],
            stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._wait_for_log(r"Server is ready")
        listening = r'msg="?Listening on"? .*?address=(\S+)'  # which may come later
        self.url = "http://" + re.search(listening, self._wait_for_log(listening))[1]

    def scrape_as(self, config: dict[str, object]) -> None:
        """Scrape as one of the ``scrape_configs`` says, from now on."""
        self._jobs[str(config["job_name"])] = config
        self._reload()

    def scrape(self, job: str, url: str) -> None:
        """Scrape the metrics at *url* as *job*, from now on."""
        scheme, _, host, path = url.split("/", 3)
        self._jobs[job] = {
            "job_name": job,
            "scheme": scheme.removesuffix(":"),
            "metrics_path": f"/{path}",
            "static_configs": [{"targets": [host]}],
        }
        self._reload()

    def discover(self, job: str, files: Path) -> None:
        """Scrape the targets in files, which may come and go, as *job*, from now on."""
        discovery = {"files": [str(files)], "refresh_interval": "1s"}
        self._jobs[job] = {"job_name": job, "file_sd_configs": [discovery]}
        self._reload()

    def load_rules(self, path: Path) -> None:
        """Evaluate the rules of a file, from now on."""
        self._rules.append(str(path))
        self._reload()

    def forget(self) -> None:
        """Scrape and evaluate nothing any more."""
        self._jobs.clear()
        self._rules.clear()
        self._reload()

    def get(self, path: str, **parameters: str) -> object:
        """Return the data of an answer of the HTTP API."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=DEADLINE) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Return what an expression is now: the value, or a histogram's count, by the labels, sorted and without the name."""
        return {
            tuple(sorted(item for item in each["metric"].items() if item[0] != "__name__")): float(
                each["value"][1] if "value" in each else each["histogram"][1]["count"]
            )
            for each in self.get("query", query=expression)["result"]
        }

    def stop(self) -> None:
        """End it; it removes nothing itself."""
        self.process.terminate()
        self.process.wait(timeout=DEADLINE)
        self._log.close()

    def _configure(self) -> None:
        config = {
            "global": {"scrape_interval": "250ms", "evaluation_interval": "250ms"},
            "scrape_configs": list(self._jobs.values()),
            "rule_files": self._rules,
        }
        (self._directory / "prometheus.json").write_text(json.dumps(config))  # YAML, too

    def _reload(self) -> None:
        self._configure()
        with urllib.request.urlopen(f"{self.url}/-/reload", data=b"", timeout=DEADLINE):
            pass

    def _wait_for_log(self, pattern: str) -> str:
        def log() -> str:
            assert self.process.poll() is None, (self._directory / "log").read_text()
            return (self._directory / "log").read_text()

        return wait_for(log, lambda text: re.search(pattern, text))


def wait_for(ask: Callable[[], T], is_enough: Callable[[T], object]) -> T:
    """Ask until the answer is enough, and return it; fail with the last one."""
    end = time.monotonic() + DEADLINE
    while not is_enough(answer := ask()):
        assert time.monotonic() < end, answer
        time.sleep(0.02)
    return answer


@pytest.fixture(scope="session")
def prometheus_server(
    component: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """The Prometheus of all tests; its data are in a temporary directory."""
    directory = tmp_path_factory.mktemp("prometheus")
    server = Prometheus(component("prometheus"), directory)
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def native_prometheus_server(
    component: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus that asks for protocol buffers, which have native histograms and exemplars."""
    directory = tmp_path_factory.mktemp("native-prometheus")
    server = Prometheus(component("prometheus"), directory, "--enable-feature=native-histograms,exemplar-storage")
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture
def native_prometheus(native_prometheus_server: Prometheus) -> Iterator[Prometheus]:
    """The same, which scrapes nothing yet."""
    yield native_prometheus_server
    native_prometheus_server.forget()


@pytest.fixture
def prometheus(prometheus_server: Prometheus) -> Iterator[Prometheus]:
    """A Prometheus that scrapes nothing yet. What others have scraped before has other jobs."""
    yield prometheus_server
    prometheus_server.forget()


@pytest.fixture(scope="session")
def promtool(component: Callable[[str], str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run promtool to its end."""

    def run(*arguments: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [component("promtool"), *map(str, arguments)]
        return subprocess.run(
            command, input=stdin, env={"GOGC": "400", **os.environ},  # a fifth less time for a little more memory
            capture_output=True, text=True, timeout=6 * DEADLINE, check=False,
        )  # fmt: skip

    return run
