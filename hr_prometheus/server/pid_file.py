"""The file with the number of this process: others signal the process by it, and it keeps a second one from starting."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from hr_prometheus.errors import ServingError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Bytes that are read of a file. A number has fewer.
_MOST_BYTES = 32


class _File(NamedTuple):
    path: str
    descriptor: int
    pid: int


#: That of this process, while it is held.
_held: _File | None = None


@contextmanager
def hold_pid_file(path: str | None) -> Iterator[None]:
    """Have the number of this process in a file while the block runs; ``None`` is no file.

    The file is locked as long as the process lives, so one that was left by a process which was killed is taken over. Raises
    :exc:`~hr_prometheus.errors.ServingError` if another process has it, or if it cannot be written.
    """
    global _held  # noqa: PLW0603  # there is one in a process
    if path is None:
        yield
        return
    try:
        _held = _File(os.path.realpath(path), _lock(path), os.getpid())
    except ServingError:
        raise
    except OSError as error:
        raise _os_error(path, error) from error
    os.register_at_fork(after_in_child=remove_pid_file)  # else the lock would live as long as the child
    try:
        yield
    finally:
        remove_pid_file()


def check_pid_file(path: str | None) -> None:
    """Check that there can be such a file. Another process may have it now. Raises what :func:`hold_pid_file` raises for it."""
    if path is None:
        return
    real_path = os.path.realpath(path)
    directory = os.path.dirname(real_path)
    try:
        if os.path.exists(real_path):
            descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
            try:
                _check_content(path, descriptor)
            finally:
                os.close(descriptor)
        elif not os.access(os.path.join(directory, ""), os.W_OK | os.X_OK):
            os.stat(os.path.join(directory, ""))  # it may be no directory
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except ServingError:
        raise
    except OSError as error:
        raise _os_error(path, error) from error


def remove_pid_file() -> None:
    """Remove the file if this process holds it and it is still there. A fork of the process only lets go of it."""
    global _held
    file, _held = _held, None
    if file is None:
        return
    if file.pid == os.getpid() and _is_at(file.path, file.descriptor):
        with suppress(OSError):
            os.unlink(file.path)
    with suppress(OSError):  # the application has closed it
        os.close(file.descriptor)


def _lock(path: str) -> int:
    """Return the descriptor of the locked file, with the number of this process in it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _check_content(path, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, _MOST_BYTES, 0).decode().strip()
            owner = f"process {pid}" if pid else "another process"
            raise _error(path, f"{owner} has it. Stop that process, or choose another file.") from None
        if _is_at(path, descriptor):
            text = f"{os.getpid()}\n".encode()
            with suppress(PermissionError):  # another user has made it for this one
                os.fchmod(descriptor, 0o644)
            os.pwrite(descriptor, text, 0)
            os.ftruncate(descriptor, len(text))
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)  # the process that had it has just removed it
    return _lock(path)


def _check_content(path: str, descriptor: int) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise _error(path, "it is not a regular file. Choose another one.")
    content = os.pread(descriptor, _MOST_BYTES, 0).strip()
    if content and not content.isdigit():
        raise _error(path, "there is a file of this name, and it has no process ID. Choose another one.")


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def _os_error(path: str, error: OSError) -> ServingError:
    return _error(path, f"{error.strerror or error}. Expected a file in a directory that can be written to.")


def _error(path: str, problem: str) -> ServingError:
    return ServingError(f'--pid-file "{path}": {problem}')
