from __future__ import annotations

import os

import pytest

from hr_prometheus.commands import outputs
from hr_prometheus.errors import ServingError


def test_a_file_is_replaced_when_it_is_complete(tmp_path, monkeypatch):
    """Its mode stays, a link to it stays a link, and a full device leaves the old one as it was."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to("file")
    outputs.write_file(str(link), "new")
    assert (file.read_text(), file.stat().st_mode & 0o777, link.is_symlink()) == ("new", 0o640, True)

    def full(_old: str, _new: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ServingError, match=r'link" cannot be written: No space left on device\. Choose another file\.'):
        outputs.write_file(str(link), "newer")
    assert file.read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_file_that_cannot_be_replaced_is_written(tmp_path, monkeypatch):
    """One that is mounted by itself, as in a container, is busy for its directory."""

    def busy(_old: str, _new: str) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "replace", busy)
    outputs.write_file(str(tmp_path / "file"), "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_a_device(tmp_path):
    """It is written, not replaced."""
    outputs.write_file(os.devnull, "text")
    assert not os.path.isfile(os.devnull)
    with pytest.raises(ServingError, match="Is a directory"):
        outputs.write_file(str(tmp_path), "text")
