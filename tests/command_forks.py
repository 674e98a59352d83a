"""Run ``hr-prometheus`` in forks of a process that has imported it, each in a tenth of the time of an interpreter's start.

Each line of the standard input is a command to run, as JSON; its exit code is a line of the standard output.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import sys

# What a command imports, in the order in which it does, so that a fork imports no more than the application.
import hr_prometheus.commands.group
import hr_prometheus.server.run
import hr_prometheus.workers.run  # noqa: F401


def run(arguments: list[str], directory: str, environment: dict[str, str], outputs: list[str]) -> None:
    """Become ``python -m hr_prometheus``, whose standard output and error are files."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, output in enumerate(outputs, start=1):
        os.dup2(os.open(output, os.O_WRONLY), descriptor)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    sys.path[0] = directory
    runpy.run_module("hr_prometheus", run_name="__main__", alter_sys=True)


gc.freeze()  # a fork that collects garbage would copy all that is here
for line in sys.stdin:
    command = json.loads(line)
    if pid := os.fork():
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
    else:
        run(**command)
        break
