"""Calls of another process: one JSON line each way, over its standard input and output."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import traceback
from typing import Any, Self

HERE = os.path.dirname(os.path.abspath(__file__))


class Helper:
    """A script of this folder, running under the interpreter *python*; end it by leaving the ``with``."""

    def __init__(self, script: str, python: str = sys.executable) -> None:
        # The caller's variables must not change how a peer imports or configures its packages.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PROM"))}
        self._process = subprocess.Popen(  # noqa: S603  # our own scripts
            [python, "-W", "ignore", os.path.join(HERE, script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the driver, which ends this process
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the helper and return its result. Raises RuntimeError with its traceback."""
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018  # they are pipes
        self._process.stdin.write(json.dumps([method, arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f'the helper {self._process.args!r} ended during "{method}"')
        failure, result = json.loads(answer)
        if failure:
            raise RuntimeError(f'"{method}" failed in the helper {self._process.args!r}:\n{failure}')
        return result


async def obey(helper: object) -> None:
    """Call methods of *helper* as the lines of standard input say, until their end."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))  # a shell allows fewer than 1,000 connections
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # an application may print
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        method, arguments = json.loads(line)
        try:
            answer = ("", await getattr(helper, method)(**arguments))
        except Exception:  # noqa: BLE001  # the caller gets it
            answer = (traceback.format_exc(), None)
        with contextlib.suppress(BrokenPipeError):  # the driver has ended, and so does the input
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
