"""hr-prometheus top, on a real terminal and without one."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import DEADLINE, clean_environment, hr_prometheus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ALTERNATE, _NORMAL = "\x1b[?1049h", "\x1b[?1049l"


class Terminal:
    """A terminal with a command in its foreground. *text* is all that was written to it."""

    def __init__(self, fd: int, pid: int) -> None:
        self.fd, self.pid = fd, pid
        self.text = ""

    def resize(self, columns: int, lines: int) -> None:
        """Change its size, as a window does; the kernel sends the signal."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.fd, keys.encode())

    def read(self) -> bool:
        """Read until nothing is written for a moment, so that pictures are whole; return whether the terminal is open."""
        while select.select([self.fd], [], [], 0.05)[0]:
            try:
                self.text += os.read(self.fd, 100_000).decode()
            except OSError:  # so does a terminal end on Linux
                return False
        return True

    def wait(self, is_enough: Callable[[str], object]) -> str:
        """Wait until the latest complete picture is enough, and return it without colours."""
        end, is_open = time.monotonic() + DEADLINE, True
        while not is_enough(picture := _CONTROL.sub("", self.text.rpartition("\x1b[H")[2]).replace("\r", "")):
            assert is_open, self.text[-2000:]
            assert time.monotonic() < end, self.text[-2000:]
            is_open = self.read()
        return picture

    def end(self) -> int:
        """Read to the end, and return the exit code."""
        end = time.monotonic() + DEADLINE
        while self.read():
            assert time.monotonic() < end, self.text[-2000:]
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@contextmanager
def on_a_terminal(*arguments: str, columns: int = 80, lines: int = 24, **changes: str) -> Iterator[Terminal]:
    """Run ``hr-prometheus top`` on a terminal."""
    command = [sys.executable, "-m", "hr_prometheus", "top", "--interval", "0.2", *arguments]
    environment = clean_environment(**{"TERM": "xterm-256color", **changes})
    environment.pop("NO_COLOR", None) if "NO_COLOR" not in changes else None
    pid, fd = pty.fork()
    if pid == 0:
        time.sleep(0.1)  # the parent sets the size
        os.execve(sys.executable, command, environment)  # noqa: S606
    terminal = Terminal(fd, pid)
    terminal.resize(columns, lines)
    try:
        yield terminal
    finally:
        os.close(fd)
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


METRICS = ("--metrics-port", "0", "--fixed-route", "*")


@pytest.fixture
def service(serve):
    """A server with its metrics on a port of their own."""
    return serve("served:create_app", "--port", "0", *METRICS)


def ask(service, path: str) -> None:
    """Ask a server for a path, whatever it answers."""
    try:
        with urllib.request.urlopen(service.url + path, timeout=DEADLINE) as response:
            response.read()
    except urllib.error.HTTPError as error:
        error.close()


def row(picture: str, name: str) -> list[str]:
    """Return the values of a row, or those of no row."""
    return next((line.removeprefix(name).split() for line in picture.splitlines() if line.startswith(name)), [])


def test_a_terminal_shows_the_routes(service):
    """Their rates, errors and latencies, while there are requests; q ends it, and the terminal is as before."""
    with on_a_terminal(service.metrics_url) as terminal:
        terminal.wait(lambda text: "has had no request yet" in text)

        def has_rates(picture: str) -> bool:
            ask(service, "/")
            ask(service, "/broken")
            values = row(picture, "GET /broken")
            return "ms" in "".join(values) and values[0] == values[1] != "-"

        picture = terminal.wait(has_rates)
        lines = picture.splitlines()
        assert len(lines) == 24
        assert max(map(len, lines)) <= 80
        assert lines[0].startswith(f"{service.metrics_url}  2 routes, every 0.2 s")
        assert lines[2].split()[:6] == ["ROUTE", "REQ/S", "5XX/S", "4XX/S", "499/S", "P50"]
        assert row(picture, "GET / ")[1] == "-"
        assert lines[-1].startswith("r rate  e errors ")
        assert "\x1b[1;31m" in terminal.text
        terminal.type("q")
        assert terminal.end() == 0
        assert "Traceback" not in terminal.text
        assert terminal.text.endswith(_NORMAL)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, "\x03", "\x1c", "Q"])
def test_each_end_restores_the_terminal(service, end):
    """It is 0 for a signal, Ctrl-C and Ctrl-Backslash, as for q; keys are shown and lines are edited again."""
    with on_a_terminal(service.metrics_url) as terminal:
        before = termios.tcgetattr(terminal.fd)
        terminal.wait(lambda text: "q quit" in text)
        assert not termios.tcgetattr(terminal.fd)[3] & (termios.ECHO | termios.ICANON)
        terminal.type(end) if isinstance(end, str) else os.kill(terminal.pid, end)
        terminal.wait(lambda _: _NORMAL in terminal.text)
        assert terminal.end() == 0
        assert termios.tcgetattr(terminal.fd) == before
        assert terminal.text.endswith("\x1b[?25h" + _NORMAL)


def test_a_terminal_that_is_closed(service):
    """It ends, without a word and without an error."""
    with on_a_terminal(service.metrics_url) as terminal:
        terminal.wait(lambda text: "q quit" in text)
        spare = os.open(os.devnull, os.O_RDONLY)
        os.dup2(spare, terminal.fd)
        os.close(spare)
        assert os.waitstatus_to_exitcode(os.waitpid(terminal.pid, 0)[1]) == 0


def test_a_key_sorts(service):
    """The first row is that with the highest value; the title of the column and the key are marked."""
    ask(service, "/")
    ask(service, "/missing")
    with on_a_terminal(service.metrics_url, "--sort", "path") as terminal:
        terminal.wait(lambda text: row(text, "GET /missing"))
        assert "\x1b[1;4mROUTE" in terminal.text

        def missing_is_first(picture: str) -> bool:
            ask(service, "/missing")
            return picture.splitlines()[4].startswith("GET /missing")

        terminal.type("xr")
        terminal.wait(missing_is_first)
        assert "\x1b[1;4mr rate\x1b[m" in terminal.text


def test_a_terminal_that_changes_its_size(service):
    """The picture has the new one at once, though the next scrape is far."""
    with on_a_terminal(service.metrics_url, "--interval", "600") as terminal:
        terminal.wait(lambda text: text.count("\n") == 23)
        for columns, lines in ((200, 30), (30, 6), (8, 2), (1, 1), (80, 24)):
            terminal.resize(columns, lines)
            terminal.wait(lambda text, lines=lines: text.count("\n") == lines - 1)


def test_a_terminal_of_another_width(service):
    """A narrow one shows a part of a path, and a wide one the whole and more columns."""
    ask(service, "/cell_neighbour/1/direction/north")
    with on_a_terminal(service.metrics_url, columns=60) as terminal:
        picture = terminal.wait(lambda text: "GET /cell_neig" in text)
        assert max(map(len, picture.splitlines())) <= 60
        assert picture.endswith("  q quit")
        terminal.resize(200, 24)
        picture = terminal.wait(lambda text: " LOOP" in text)
        assert "GET /cell_neighbour/{cell_id}/direction/{direction} " in picture


def test_a_terminal_without_colours(service):
    """NO_COLOR leaves nothing but text."""
    ask(service, "/broken")
    with on_a_terminal(service.metrics_url, NO_COLOR="1") as terminal:
        terminal.wait(lambda text: "GET /broken" in text)
        assert not re.search(r"\x1b\[[0-9;]+m", terminal.text)


def test_a_server_that_is_started_again(serve, service):
    """While it is away one line says so, and the table goes on when it is back."""
    for _ in range(5):
        ask(service, "/")
    port = urllib.parse.urlsplit(service.metrics_url).port
    with on_a_terminal(f":{port}") as terminal:
        terminal.wait(lambda text: "GET / " in text)
        service.stop()
        picture = terminal.wait(lambda text: "Trying again." in text)
        assert picture.splitlines()[1] == "It does not answer: Connection refused. Trying again."
        assert "GET / " in picture
        again = serve("served:create_app", "--port", "0", "--metrics-port", str(port), "--fixed-route", "*")
        ask(again, "/missing")
        ask(again, "/")
        picture = terminal.wait(lambda text: "GET /missing" in text)
        assert "Trying again." not in picture
        assert "started again from 0" in terminal.text
        assert not re.search(r" -\d", picture)
        terminal.type("q")
        assert terminal.end() == 0


def test_a_suspension(service):
    """Ctrl-Z gives the terminal back to the shell, and fg shows the table again."""
    python = f"{sys.executable} -m hr_prometheus top --interval 0.2 {service.metrics_url}"
    script = f"set -m; {python}; echo suspended $(stty -a | grep -o ' -\\?icanon'); fg; echo ended $?"
    pid, fd = pty.fork()
    if pid == 0:
        os.execve("/bin/bash", ["bash", "-c", script], clean_environment(TERM="xterm"))  # noqa: S606
    terminal = Terminal(fd, pid)
    try:
        terminal.resize(80, 24)
        terminal.wait(lambda text: "q quit" in text)
        terminal.type("\x1a")
        terminal.wait(lambda _: "suspended icanon" in terminal.text)
        assert terminal.text.count(_NORMAL) == 1
        terminal.wait(lambda _: terminal.text.rpartition("suspended")[2].count("q quit") > 1)
        terminal.type("q")
        terminal.wait(lambda _: "ended 0" in terminal.text)
        assert terminal.end() == 0
    finally:
        os.close(fd)


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_cannot_move_its_cursor(service, term):
    """It gets one table, without control sequences."""
    ask(service, "/broken")
    with on_a_terminal(service.metrics_url, TERM=term) as terminal:
        assert terminal.end() == 0
        assert "\x1b" not in terminal.text
        assert row(terminal.text, "GET /broken")


def test_once(service):
    """A terminal gets a table of its width, a pipe one of any; both after an interval."""
    ask(service, "/cell_neighbour/1/direction/north")
    with on_a_terminal(service.metrics_url, "--once", columns=60) as terminal:
        assert terminal.end() == 0
    assert max(map(len, terminal.text.splitlines())) == 60
    assert "\x1b" not in terminal.text
    done = hr_prometheus("top", service.metrics_url, "--interval", "0.2")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line[:10] for line in lines] == ["ROUTE     ", "all routes", "GET /cell_"]
    assert lines[0].endswith(" IN/S")


def test_workers_are_one_truth(serve):
    """The table of several workers is that of all their requests."""
    service = serve("served:create_app", "--port", "0", "--workers", "2", *METRICS, "--metric-prefix", "app_")
    ask(service, "/missing")
    done = hr_prometheus("top", service.metrics_url, "--interval", "0.2")
    assert row(done.stdout, "GET /missing")


def test_a_password_and_a_certificate(serve):
    """Metrics behind TLS and a password are shown, and the password is nowhere, on a terminal either."""
    tls = Path(__file__).parent.parent / "tls"
    certificate = str(tls / "certificate.pem")
    service = serve("served:create_app", "--port", "0", "--certfile", certificate, "--keyfile", str(tls / "key.pem"))
    url = service.metrics_url.replace("://", "://me:s3cret@")
    with on_a_terminal(url, "--ca-file", certificate) as terminal:
        terminal.wait(lambda text: row(text, "GET /metrics"))
        service.stop()
        terminal.wait(lambda text: "Trying again." in text)
        terminal.type("q")
        assert terminal.end() == 0
        assert "s3cret" not in terminal.text
    for arguments in ([url], [url, "x"], ["x", url], [f"{url}/@"], ["x", "--interval", url]):
        done = hr_prometheus("top", *arguments)
        assert done.returncode in {1, 2}
        assert "Error" in done.stderr
        assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["127.0.0.1:1"], 1, 'Error: "http://127.0.0.1:1/metrics" does not answer: Connection refused.\n'),
        (["ftp://x"], 2, 'Error: "ftp://x" is not a URL of metrics. Expected '),
        (["9100", "--interval", "0.1"], 2, "expected a number of seconds, from 0.2 on "),
        (["9100", "--sort", "x"], 2, "'x' is not one of 'rate', "),
    ],
)
def test_errors(arguments, code, words):
    """Each is a sentence and an exit code."""
    done = hr_prometheus("top", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr


def test_a_url_without_metrics_of_requests(service):
    """One of another program, or without a request yet, is an error of its own; so is a page."""
    done = hr_prometheus("top", service.metrics_url, "--interval", "0.2")
    assert done.stderr == (
        f'Error: "{service.metrics_url}" has no metrics of requests. Its server has had no request yet, or is not '
        "instrumented by hr-prometheus.\n"
    )
    assert done.returncode == 1
    done = hr_prometheus("top", service.url + "/slow?file=/dev/null")
    assert (done.returncode, "does not answer with metrics. Is it the URL of the metrics?" in done.stderr) == (1, True)
