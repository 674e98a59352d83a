"""A process that does what another one asks: one JSON line each way, over its standard input and output."""

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
        # Nothing of the caller's may choose another prometheus_client or another hr_prometheus for a peer.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PROM"))}
        self._process = subprocess.Popen(  # noqa: S603  # our own scripts
            [python, "-W", "ignore", os.path.join(HERE, script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is the driver's, which ends us
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def call(self, method: str, **arguments: Any) -> Any:
        """Return what the method of that name of the helper returns; raises RuntimeError with its traceback."""
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018  # they are pipes
        self._process.stdin.write(json.dumps([method, arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f'the helper {self._process.args!r} ended while it was asked to "{method}"')
        failure, result = json.loads(answer)
        if failure:
            raise RuntimeError(f'the helper {self._process.args!r} failed to "{method}":\n{failure}')
        return result


async def obey(helper: object) -> None:
    """Call the methods of *helper* that standard input asks for, until its end."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))  # 1,000 connections are more than a shell allows
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever an application prints is no answer
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        method, arguments = json.loads(line)
        try:
            answer = ("", await getattr(helper, method)(**arguments))
        except Exception:  # noqa: BLE001  # it is the caller's
            answer = (traceback.format_exc(), None)
        with contextlib.suppress(BrokenPipeError):  # the driver is gone, and the next line is the end
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
