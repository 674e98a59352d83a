"""Run ``hr-prometheus`` in forks of a process that has imported it, each in a tenth of the time of an interpreter's start.

Each line of the standard input is a command to run, as JSON; its pid is a line of the standard output.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import sys
from typing import NoReturn

# What a command imports, in the order in which it does, so that a fork imports no more than the application.
import hr_prometheus.commands.group
import hr_prometheus.server.run
import hr_prometheus.workers.run  # noqa: F401


def run(arguments: list[str], directory: str, environment: dict[str, str], outputs: list[int]) -> None:
    """Become ``python -m hr_prometheus``, with these descriptors as its standard output and error, and no others."""
    opened = [os.open(os.devnull, os.O_RDONLY), *outputs]
    for descriptor, other in enumerate(opened):
        os.dup2(other, descriptor)
    os.closerange(3, max(opened) + 1)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    sys.path[0] = directory
    runpy.run_module("hr_prometheus", run_name="__main__", alter_sys=True)


def watch(pid: int, end: int, outputs: list[int]) -> NoReturn:
    """Tell the pid of a command, and at its end write its exit code."""
    sys.stdout.write(f"{pid}\n")
    for output in outputs:  # which end with the command
        os.close(output)
    os.write(end, f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n".encode())
    os._exit(0)


gc.freeze()  # a fork that collects garbage would copy all that is here
watchers: set[int] = set()
for line in sys.stdin:
    watchers -= {watcher for watcher in watchers if os.waitpid(watcher, os.WNOHANG)[0]}
    if watcher := os.fork():
        watchers.add(watcher)
        continue
    command = json.loads(line)
    end, *outputs = [os.open(path, os.O_WRONLY) for path in command.pop("outputs")]
    if pid := os.fork():
        watch(pid, end, outputs)
    run(**command, outputs=outputs)
    break
