"""What all commands promise, those included that will be added: their help, and what cannot be written."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from conftest import (
    APPS,
    DEADLINE,
    ForkedCommand,
    clean_environment,
    command_forks,
    hr_prometheus,
    unmeasured_environment,
)

import hr_prometheus as hr_prometheus_package
from hr_prometheus.commands.group import cli

if TYPE_CHECKING:
    from collections.abc import Iterator


def names(command: click.Command, *before: str) -> Iterator[tuple[str, ...]]:
    """Yield the words that name a command, and those of each command below it."""
    yield before
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from names(each, *before, name)


COMMANDS = list(names(cli))


def on_a_terminal(columns: int, *arguments: str) -> tuple[int, str]:
    """Run the command on a terminal; return its exit code and what the terminal shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = ForkedCommand(
        command_forks(is_measured=True), arguments, APPS, clean_environment(), output=theirs, pass_fds={0: theirs, 2: theirs},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 10_000):
            shown += piece
    except OSError:  # so does a terminal end on Linux
        pass
    finally:
        os.close(ours)
    process.communicate(timeout=DEADLINE)
    return process.returncode, shown.decode().replace("\r\n", "\n")


def in_a_pipe(columns: int, *arguments: str) -> tuple[int, str]:
    """Run the command without a terminal; return its exit code and what it prints."""
    done = hr_prometheus(*arguments, COLUMNS=str(columns))
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_its_help(monkeypatch, capsys, command, columns):
    """It fits the width, and every option is in it."""
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as end:
        cli([*command, "--help"], prog_name="hr-prometheus")
    text = capsys.readouterr().out
    assert not end.value.code
    assert text.startswith("Usage: ")
    assert not [line for line in text.splitlines() if len(line) > columns]
    of_command = cli
    for name in command:
        of_command = of_command.commands[name]
    for parameter in of_command.params:
        assert not isinstance(parameter, click.Option) or f"{parameter.opts[-1]} " in text.replace("\n", " ")


@pytest.mark.parametrize("columns", [60, 90])
def test_the_help_fits_the_terminal(columns):
    """A terminal shows what a pipe gets with its width in COLUMNS."""
    code, text = on_a_terminal(columns, "rules", "--help")
    assert (code, text) == in_a_pipe(columns, "rules", "--help")
    assert columns - 9 < max(map(len, text.splitlines())) <= columns


EMPTY_FILE = str(Path(hr_prometheus_package.__file__).with_name("py.typed"))
TARGETS = {"run": ["served:app", "--port", "0"], "routes": ["served:app"], "check-web-config": [EMPTY_FILE]}


def in_a_shell(command: str, before: str = "", **changes: str) -> tuple[int, str]:
    """Run the command with redirections, and Python's own buffers; return its exit code and standard error."""
    program = f"{before}{sys.executable} -m hr_prometheus {command}"
    environment = unmeasured_environment(**{"PYTHONUNBUFFERED": "", **changes})
    done = subprocess.run(
        ["/bin/bash", "-c", program], cwd=APPS, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def in_a_fork(
    command: str, output: str = "", *, unbuffered: str = "", cwd: Path = APPS, first: str = ""
) -> tuple[int, str]:
    """Do the same in a fork, with one of these redirections."""
    full = os.open("/dev/full", os.O_WRONLY)
    process = ForkedCommand(
        command_forks(is_measured=False, PYTHONUNBUFFERED=unbuffered), command.split(), cwd, unmeasured_environment(),
        output={">/dev/full": full, ">&-": None}.get(output, "pipe"), first=first,
        pass_fds={"2>/dev/full": {2: full}, "2>&-": {2: None}}.get(output, ()),
    )  # fmt: skip
    os.close(full)
    if output == "| true":
        process.stdout.close()
    _, err = process.communicate(timeout=DEADLINE)
    return process.returncode, err


ENDING = ["--help", "--version", *(" ".join([*name, "--help"]) for name in COMMANDS if name)]
ENDING += [" ".join([*name, *TARGETS.get(name[0], [])]) for name in COMMANDS if name not in ((), ("run",), ("top",))]
#: Those that a shell starts as well.
TYPED = ("routes served:app", "routes nothing:app")


@pytest.mark.parametrize(
    ("output", "unbuffered", "reason"),
    [(">/dev/full", "", "No space left on device"), (">/dev/full", "1", "No space left on device"),
     (">&-", "", "it is closed")],
)  # fmt: skip
@pytest.mark.parametrize("command", ENDING)
def test_an_output_that_is_refused(command, output, unbuffered, reason):
    """It is one sentence and exit code 1, for every command, whether Python buffers or not."""
    sentence = f"Error: standard output cannot be written: {reason}. Send it somewhere else.\n"
    assert in_a_fork(command, output, unbuffered=unbuffered) == (1, sentence)
    if command in TYPED:
        assert in_a_shell(f"{command} {output}", PYTHONUNBUFFERED=unbuffered) == (1, sentence)


@pytest.mark.parametrize("command", ENDING)
def test_a_pipe_that_is_closed_is_silence(command):
    """Its reader has what it wanted, so the exit code is 0."""
    assert in_a_fork(command, "| true") == (0, "")
    if command in TYPED:
        assert in_a_shell(f"{command} | true; exit ${{PIPESTATUS[0]}}") == (0, "")


def test_a_pipe_that_is_closed_hides_nothing():
    """What the exit code has to say, it says."""
    assert in_a_shell("routes served:app --max-series 1 | true; exit ${PIPESTATUS[0]}")[0] == 4


@pytest.mark.parametrize("output", ["2>/dev/full", "2>&-"])
@pytest.mark.parametrize("command", ["nothing", "routes nothing:app", "run nothing:app", "rules --objective 1000"])
def test_errors_that_cannot_be_written(command, output):
    """The exit code says what it can."""
    assert in_a_fork(command, output)[0] in (1, 2)
    if command in TYPED:
        assert in_a_shell(f"{command} {output}")[0] in (1, 2)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ((), ("top",))], ids=" ".join)
def test_a_directory_that_is_deleted(tmp_path, name):
    """What needs the current directory is one sentence; what does not is done."""
    (tmp_path / "gone").mkdir()
    arguments = " ".join([*name, *TARGETS.get(name[0], [])])
    command = f"{arguments} --certfile x" if name == ("scrape-config",) else arguments
    gone = tmp_path / "gone"
    code, text = in_a_fork(command, cwd=gone, first=f"import os; os.rmdir({str(gone)!r})")
    expected = "Error: the current directory does not exist any more. Change to an existing directory.\n"
    needing_none = ("rules",), ("dashboard",), ("config",), ("check-web-config",)
    assert (code, text) == ((0, "") if name in needing_none else (1, expected))
    if command in TYPED:
        assert in_a_shell(command, f"mkdir {gone} && cd {gone} && rmdir ../gone && ") == (code, text)


def test_a_variable_that_is_no_setting():
    """Whichever the command, it is a warning with the nearest name; variables of other commands are settings."""
    for command in (["routes", "served:app"], ["rules"], ["run", "none:app"]):
        done = hr_prometheus(
            *command, HR_PROMETHEUS_METRIC_PORT="9100", HR_PROMETHEUS_JOB="x", HR_PROMETHEUS_FORMAT="text"
        )
        first = done.stderr.splitlines()[0]
        assert first == (
            "Warning: HR_PROMETHEUS_METRIC_PORT is not a setting of hr-prometheus. "
            'Did you mean "HR_PROMETHEUS_METRICS_PORT"?'
        )
        assert done.stderr.count("Warning") == 1
    assert "is not a setting of hr-prometheus.\n" in hr_prometheus("rules", HR_PROMETHEUS_XYZZY="1").stderr


@pytest.mark.parametrize("tests", ["r.yml", "./r.yml", "link.yml", "hard.yml", "../{name}/r.yml"])
def test_two_outputs_of_one_file(tmp_path, tests):
    """However it is spelt or linked to, nothing is written."""
    (tmp_path / "r.yml").write_text("before")
    (tmp_path / "link.yml").symlink_to("r.yml")
    (tmp_path / "hard.yml").hardlink_to(tmp_path / "r.yml")
    command = f"rules --output r.yml --tests {tests.format(name=tmp_path.name)}"
    done = hr_prometheus(*command.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert 'is the file of --output "r.yml". Choose another file.' in done.stderr
    assert (tmp_path / "r.yml").read_text() == "before"


def test_two_outputs_of_one_file_that_is_new(tmp_path):
    """A file that does not exist yet is one file, too."""
    done = hr_prometheus("rules", "--output", "r.yml", "--tests", "./r.yml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        'Error: --tests "./r.yml" is the file of --output "r.yml". Choose another file.\n',
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        "rules served.py:app --output served.py",
        "dashboard served:app --output link.py",
        "rules served:app --output r.yml --tests served.py",
        "rules script.py --output script.py",
        "scrape-config --certfile script.py --output script.py",
    ],
)
def test_an_output_that_is_an_input(tmp_path, command):
    """What was read is not written over: the target, a module, a script, a certificate."""
    for name in ("served.py", "script.py"):
        shutil.copy(APPS / name, tmp_path)
    (tmp_path / "link.py").symlink_to("served.py")
    done = hr_prometheus(*command.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith(". Choose another file.\n")
    assert not (tmp_path / "r.yml").exists()
    for name in ("served.py", "script.py"):
        assert (tmp_path / name).read_text() == (APPS / name).read_text()


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_routes_fit_the_terminal(columns):
    """With and without a terminal they are as wide as COLUMNS; a pipe without it has one line a route."""
    code, text = on_a_terminal(columns, "routes", "served:app")
    assert (code, text) == in_a_pipe(columns, "routes", "served:app")
    assert not [line for line in text.splitlines() if len(line) > columns and " " in line]
    assert hr_prometheus("routes", "served:app").stdout.startswith("METHODS ")
