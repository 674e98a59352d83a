from __future__ import annotations

import os

import pytest

from hr_prometheus.access.files import FileStates, read_file


def test_a_file_that_changes(tmp_path):
    """Another content, another file of the same size and time, and a file that is gone or comes are changes; a look is none."""
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_text("one")
    states = FileStates()
    assert states.read(str(path)) == b"one"
    assert not states.have_changed()
    path.write_text("three")
    assert states.have_changed()
    assert states.read(str(path)) == b"three"
    assert not states.have_changed()
    other.write_text("THREE")
    status = path.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert states.have_changed()
    assert states.read(str(path)) == b"THREE"
    path.unlink()
    assert states.have_changed()
    with pytest.raises(FileNotFoundError):
        states.read(str(path))
    assert not states.have_changed()
    path.write_text("again")
    assert states.have_changed()


def test_what_cannot_be_read_again(tmp_path):
    """A pipe and a device are refused at once, also a pipe that has a writer."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="Not a regular file"):
        read_file(str(path))
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    for name in (str(path), f"/dev/fd/{reader}", os.devnull):
        with pytest.raises(OSError, match="Not a regular file"):
            read_file(name)
    os.close(reader)
    os.close(writer)
    with pytest.raises(IsADirectoryError):
        read_file(str(tmp_path))


def test_a_file_that_is_too_large(tmp_path):
    """It is refused, so that it takes no memory."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 2**20)
    assert len(read_file(str(path))) == 2**20
    os.truncate(path, 2**40)
    with pytest.raises(OSError, match="Larger than 1 MiB"):
        read_file(str(path))


def test_a_link_to_another_file(tmp_path):
    """It is a change, as Kubernetes mounts a new secret."""
    for name in ("a", "b"):
        (tmp_path / name).write_text("same")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "a")
    states = FileStates()
    states.read(str(link))
    (tmp_path / "new").symlink_to(tmp_path / "b")
    (tmp_path / "new").replace(link)
    assert states.have_changed()
