"""What the tests share: a registry of their own, reading a scrape, and starting the command."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

APPS = Path(__file__).parent / "apps"
#: Seconds within which anything a test waits for must have happened.
DEADLINE = 20.0


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
    return {
        (sample.labels["method"], sample.labels["path"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "request_count_total" and sample.labels["path"] != "/metrics"
    }


def clean_environment(**changes: str) -> dict[str, str]:
    """Return an environment in which nothing configures the command but *changes*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HR_PROMETHEUS", "PROMETHEUS"))}
    return {**kept, "PYTHONUNBUFFERED": "1", **changes}


def hr_prometheus(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, in the directory of the test applications."""
    return subprocess.run(
        [sys.executable, "-m", "hr_prometheus", *arguments],
        cwd=APPS,
        env=clean_environment(**changes),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@dataclass
class Service:
    """A command that serves."""

    process: subprocess.Popen[str]
    announcement: str

    @property
    def url(self) -> str:
        """Where the application is."""
        return re.search(r" on (\S+?),", self.announcement)[1]

    @property
    def metrics_url(self) -> str:
        """Where the metrics are."""
        return re.search(r"metrics on (\S+)", self.announcement)[1]

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal and return the exit code and what was printed after the announcement."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, err


def read_line(process: subprocess.Popen[str]) -> str:
    """Return the next line of a process's output; fail with its errors if it ends or says nothing in time."""
    timer = threading.Timer(DEADLINE, process.kill)
    timer.start()
    line = process.stdout.readline()
    timer.cancel()
    if not line:
        raise AssertionError("no line was printed; errors:\n" + process.communicate()[1])
    return line


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    """Start ``hr-prometheus run`` with arguments; every started process is ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, cwd: Path = APPS, command: tuple[str, ...] = (), **changes: str) -> Service:
        process = subprocess.Popen(
            [*(command or (sys.executable, "-m", "hr_prometheus", "run")), *arguments],
            cwd=cwd,
            env=clean_environment(**changes),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
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


@pytest.fixture(scope="session")
def component(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Find a program that a test needs; without it the test is skipped, or fails if components are required."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            missing = f'"{name}" is not installed (Debian: apt-get install prometheus)'
            if request.config.getoption("--require-components"):
                pytest.fail(missing)
            pytest.skip(missing)
        return path

    return find


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
    first = f"from hr_prometheus.workers import values\nvalues.use_slot({directory!r}, {slot})\n"
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
