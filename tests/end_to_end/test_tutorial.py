"""The tutorial, step by step."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DEADLINE, clean_environment, read_line, wait_for
from manual import TUTORIAL

STEPS = re.findall(r"^```(\w+)\n(.*?)^```", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)


class Learner:
    """Does what the tutorial says in a directory of its own, at free ports, and with a Prometheus that has no time to lose."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: dict[str, subprocess.Popen[str]] = {}
        with socket.socket() as one, socket.socket() as two, socket.socket() as three:
            for each in (one, two, three):
                each.bind(("127.0.0.1", 0))
            free = (str(each.getsockname()[1]) for each in (one, two, three))
            self.ports = dict(zip(("8080", "9090", "9100"), free, strict=True))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = clean_environment(PATH=path, HR_PROMETHEUS_PORT=self.ports["8080"])

    def here(self, text: str) -> str:
        """Return a text with the ports of this test."""
        return re.sub(r"\b(8080|9090|9100)\b", lambda match: self.ports[match[0]], text)

    def write(self, text: str) -> None:
        """Write a file; its name stands in its first line."""
        name = text.splitlines()[0].removeprefix("# ")
        (self.directory / name).write_text(self.here(text).replace("interval: 5s", "interval: 1s"))

    def serve(self, command: str, output: str) -> None:
        """Start a server in place of an earlier one, and see the line of its start."""
        program = "prometheus" if command.startswith("prometheus ") else "hr-prometheus"
        self.stop(program)
        if program == "prometheus":
            command += f" --web.listen-address=127.0.0.1:{self.ports['9090']} --log.level=error"
        variables = dict(word.split("=") for word in shlex.split(command) if re.match(r"[A-Z]+=", word))
        words = [word for word in shlex.split(command) if not re.match(r"[A-Z]+=", word)]
        process = subprocess.Popen(
            words, cwd=self.directory, env=self.environment | variables,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.started[program] = process
        if output:
            self.compare(read_line(process), output)

    def do(self, command: str, output: str) -> None:
        """Run a command until it prints what it shall: not all is there at once."""

        def run() -> str:
            done = subprocess.run(
                ["/bin/sh", "-c", command], cwd=self.directory, env=self.environment, capture_output=True, text=True,
                timeout=DEADLINE, check=False,
            )  # fmt: skip
            return done.stdout + done.stderr if done.returncode == 0 or output else pytest.fail(done.stderr)

        self.compare(wait_for(run, lambda printed: self.is_as(printed, output)), output)

    def compare(self, printed: str, output: str) -> None:
        assert self.is_as(printed, output), printed

    def is_as(self, printed: str, output: str) -> bool:
        """Whether each line is there; ``…`` stands for anything."""
        patterns = (re.escape(line).replace("…", ".*") for line in output.splitlines())
        return all(re.search(f"^{pattern}", printed, re.MULTILINE) for pattern in patterns)

    def stop(self, *programs: str) -> None:
        for program in programs:
            if program in self.started:
                process = self.started.pop(program)
                process.terminate()
                process.communicate(timeout=DEADLINE)


@pytest.fixture
def learner(tmp_path):
    learner = Learner(tmp_path)
    yield learner
    learner.stop("prometheus", "hr-prometheus")


def test_the_tutorial(learner, component):
    """Its files and commands lead from a service to an alert that fires, and print what it shows."""
    for program in ("curl", "prometheus", "promtool"):
        component(program)
    for language, text in STEPS:
        if language != "console":
            learner.write(text)
            continue
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", learner.here(text), re.MULTILINE):
            is_server = re.match(r"(\w+=\S+ )?hr-prometheus run|prometheus ", command)
            (learner.serve if is_server else learner.do)(command, output)
    assert len(STEPS) > 10
