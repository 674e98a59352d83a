"""Run ``hr-prometheus`` in forks of a process that has imported it, each in a tenth of the time of an interpreter's start.

A worker is a fork as well, of a process that the supervisor's fork has left as it was: it has what a new process has,
its session, descriptors, environment and command line among them, and the supervisor is its parent. Processes that
want other flags of Python are started anew.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import json
import os
import resource
import runpy
import select
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Bytes of a message, and descriptors that one may carry.
_LONGEST, _MOST = 2**18, 253
_SET_CHILD_SUBREAPER = 36
#: What a process may use, of which a worker may use as much as its supervisor.
LIMITS = [getattr(resource, name) for name in sorted(dir(resource)) if name.startswith("RLIMIT_")]


class Forks:
    """Another process, which forks processes for this one."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def start(self, module: str, arguments: list[str], descriptors: Mapping[int | str, int], **what: object) -> int:
        """Start ``python -m MODULE``, which inherits *descriptors* under the numbers that are their keys; return its pid."""
        message = {"module": module, "arguments": arguments, "numbers": list(descriptors), **what}
        socket.send_fds(self.connection, [json.dumps(message).encode()], list(descriptors.values()))
        return int(self.connection.recv(_LONGEST))


#: The commands that run, by descriptors that are readable when they have ended, and where their exit codes are written.
ends: dict[int, tuple[int, int]] = {}


def next_process(connection: socket.socket, fork: Callable[[socket.socket, dict[str, int]], bool]) -> dict | None:
    """Return in a new process what it shall be; in this one return ``None`` when no more is asked for."""
    while True:
        write_exit_codes_until_readable(connection.fileno())
        message, descriptors, *_ = socket.recv_fds(connection, _LONGEST, _MOST)
        if not message:
            return None
        what = json.loads(message)
        what["descriptors"] = dict(zip(what.pop("numbers"), descriptors, strict=True))
        if fork(connection, what["descriptors"]):
            connection.close()
            return what
        for descriptor in descriptors:
            os.close(descriptor)


def write_exit_codes_until_readable(descriptor: int) -> None:
    """Write the exit code of each command that ends, until there is something to read."""
    poll = select.poll()
    for each in (descriptor, *ends):
        poll.register(each, select.POLLIN)
    while descriptor not in (readable := [each for each, _ in poll.poll()]):
        for each in readable:
            pid, end = ends.pop(each)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            with suppress(BrokenPipeError):
                os.write(end, b"%d\n" % code)
            poll.unregister(each)
            os.close(each)
            os.close(end)


def fork_watched(connection: socket.socket, descriptors: dict[int | str, int]) -> bool:
    """Fork, and remember to write the exit code of the fork to its ``end``."""
    end = descriptors.pop("end")
    if pid := os.fork():
        ends[os.pidfd_open(pid)] = pid, os.dup(end)
        connection.send(b"%d" % pid)
        return False
    ends.clear()
    return True


def fork_orphan(connection: socket.socket, _descriptors: dict[int | str, int]) -> bool:
    """Fork a process which has the supervisor as its parent: that takes over the children of a process which has ended."""
    reader, writer = os.pipe()
    if between := os.fork():
        os.waitpid(between, 0)
        connection.send(os.read(reader, 20))
        os.close(reader)
        os.close(writer)
        return False
    between = os.getpid()
    if pid := os.fork():
        os.write(writer, b"%d" % pid)
        os._exit(0)
    while os.getppid() == between:
        time.sleep(0.001)
    return True


def highest_descriptor() -> int:
    """Return the number above which nothing is open."""
    return max(map(int, os.listdir("/proc/self/fd")))


def paths_of(environment: Mapping[str, str]) -> list[str]:
    """Return the directories that ``PYTHONPATH`` names."""
    text = environment.get("PYTHONPATH", "")
    return list(dict.fromkeys(map(os.path.abspath, text.split(os.pathsep)))) if text else []


#: Where Python imports from after ``PYTHONPATH``.
LIBRARIES = sys.path[1 + len(paths_of(os.environ)) :]


def become(what: dict, *, kept: int) -> None:
    """Become ``python -m MODULE``, with the descriptors that were sent, and the first *kept* ones."""
    above = max(highest_descriptor(), *map(int, what["descriptors"])) + 1
    moved = {int(number): fcntl.fcntl(each, fcntl.F_DUPFD, above) for number, each in what["descriptors"].items()}
    os.closerange(kept, above)
    for number, descriptor in moved.items():
        os.dup2(descriptor, number)
        os.close(descriptor)
    for number, name in ((1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:  # as Python starts with a closed output
            sys.__dict__.update({name: None, f"__{name}__": None})
    os.chdir(what["directory"])
    os.environ.clear()
    os.environ.update(what["environment"])
    sys.argv[1:] = what["arguments"]
    sys.path[:] = [what["directory"], *paths_of(os.environ), *LIBRARIES]
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))


def show_as(command: list[str], environment: dict[str, str]) -> None:
    """Have ``/proc`` show a command line and an environment, in the place of those of the first process."""
    with open("/proc/self/stat", encoding="ascii") as file:
        places = [int(field) for field in file.read().rpartition(") ")[2].split()[45:49]]
    for start, end, texts in (
        (*places[:2], command),
        (*places[2:], [f"{name}={value}" for name, value in environment.items()]),
    ):
        text = "\0".join([*texts, ""]).encode()
        assert len(text) <= end - start, "the first process has too little room"
        ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def fork_workers() -> dict | None:
    """Have workers be started by a copy of this process as it is now; return in each worker what it shall be."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        ours.close()
        os.closerange(3, theirs.fileno())
        os.closerange(theirs.fileno() + 1, highest_descriptor() + 1)
        worker = next_process(theirs, fork_orphan)
        if worker is None:
            os._exit(0)
        return worker
    theirs.close()
    forks = Forks(ours)
    set_subreaper = ctypes.CDLL(None).prctl

    def start(command: list[str], *, pass_fds: list[int], **options: object) -> object:
        """Start a worker, as :class:`subprocess.Popen` does."""
        if command[1] != "-m":
            return subprocess.Popen(command, pass_fds=pass_fds, **options)
        environment = dict(os.environ)
        set_subreaper(_SET_CHILD_SUBREAPER, 1)
        pid = forks.start(
            command[2], command[3:], {each: each for each in pass_fds},
            directory=os.getcwd(), environment=environment, shown=command, limits=[resource.getrlimit(each) for each in LIMITS],
        )  # fmt: skip
        set_subreaper(_SET_CHILD_SUBREAPER, 0)
        return SimpleNamespace(pid=pid, returncode=None)

    process.subprocess = SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL)
    return None


def end(code: int, imported: set[str]) -> None:
    """End as Python does, but destroy only what this process has imported itself.

    To destroy what was there before the fork would copy it all, and take most of the time of a short command.
    If an output cannot be written, leave it to Python to say so.
    """
    threading._shutdown()
    atexit._run_exitfuncs()
    for name in set(sys.modules) - imported:
        sys.modules.pop(name)
    gc.collect()
    with suppress(OSError):
        for file in filter(None, (sys.stdout, sys.stderr)):
            file.flush()
        os._exit(code)


def main() -> None:
    """Fork commands until no more are wanted; go on in each of them."""
    what = next_process(socket.socket(fileno=int(sys.argv[1])), fork_watched)
    if what is None:
        return
    become(what, kept=1)
    if what["has_workers"] and (worker := fork_workers()):
        what = worker
        os.setsid()
        for limit, value in zip(LIMITS, what["limits"], strict=True):
            resource.setrlimit(limit, value)
        show_as(what["shown"], what["environment"])
        become(what, kept=3)
    imported = set(sys.modules)
    exec(what.get("first", ""), {})  # noqa: S102  # the tests' own
    code: object = 0
    try:
        runpy.run_module(what["module"], run_name="__main__", alter_sys=True)
    except SystemExit as exception:
        code = exception.code
    if isinstance(code, int):
        end(code, imported)
    raise SystemExit(code)


if __name__ == "__main__":
    # What the commands import, so that a fork imports no more than the application.
    import uvloop  # noqa: F401

    import hr_prometheus.commands.group
    import hr_prometheus.observability.dry_run
    import hr_prometheus.observability.grafana
    import hr_prometheus.observability.rule_tests
    import hr_prometheus.server.early_checks
    import hr_prometheus.server.run
    import hr_prometheus.status.scraper
    import hr_prometheus.workers.run
    import hr_prometheus.workers.worker  # noqa: F401
    from hr_prometheus.workers import process

    gc.freeze()  # a fork that collects garbage would copy all that is here
    main()
