"""What ``--reload`` watches, and what it says of a save."""

from __future__ import annotations

import os
import py_compile
from importlib.util import cache_from_source

import pytest

from hr_prometheus.settings import Settings
from hr_prometheus.workers import reload
from hr_prometheus.workers.reload import reload_at_saves, source_files
from hr_prometheus.workers.source_files import Saves


class FakeWatch:
    """Has seen saves already."""

    def __init__(self, saves: list[Saves]) -> None:
        self._saves = saves

    async def saves(self):
        for each in self._saves:
            yield each


@pytest.fixture
def lines(monkeypatch, tmp_path):
    """A function that returns what is said of a save."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reload, "FileWatch", FakeWatch)

    async def lines_of(changed: list[str], touched: list[str], *, needs_repair: bool = False) -> list[str]:
        lines: list[str] = []
        paths = ([os.path.join(tmp_path, name) for name in names] for names in (changed, touched))
        await reload_at_saves([Saves(*paths)], lambda: needs_repair, lines.append)
        return lines

    return lines_of


@pytest.mark.parametrize(
    ("paths", "line"),
    [
        (["app.py"], "app.py has changed"),
        (["app.py", "lib/b.py"], "app.py and lib/b.py have changed"),
        (["a.py", "b.py", "c.py"], "a.py, b.py and c.py have changed"),
        (["a.py", "b.py", "c.py", "d.py"], "a.py, b.py, c.py and 1 more file have changed"),
        (["a.py", "b.py", "c.py", "d.py", "e.py"], "a.py, b.py, c.py and 2 more files have changed"),
        (["/other/a.py"], "/other/a.py has changed"),
        (["..a.py"], "..a.py has changed"),
    ],
)
async def test_the_line_of_a_save(lines, paths, line):
    """It names the files as people write them, three at most."""
    assert await lines(paths, paths) == [line]


async def test_a_save_that_changes_nothing(lines):
    """It counts only while something is to be repaired."""
    assert await lines([], ["app.py"]) == []
    assert await lines([], ["app.py"], needs_repair=True) == ["app.py has been saved"]


async def test_what_python_has_compiled_is_removed(lines, tmp_path):
    """Python would take it for fresh after two saves in a second, if the size is the same."""
    for name in ("app.py", "other.py"):
        (tmp_path / name).write_text("x = 1\n")
        py_compile.compile(str(tmp_path / name))
    await lines(["app.py"], ["app.py", "other.py"])
    assert not os.path.exists(cache_from_source(str(tmp_path / "app.py")))
    assert os.path.exists(cache_from_source(str(tmp_path / "other.py")))


@pytest.mark.parametrize(
    ("target", "app_dir", "expected"),
    [
        ("package.sub.app:create", "here", ["here", "src/package", "src/package/sub"]),
        ("src/package/sub/app.py:create", "here", ["here", "src/package", "src/package/sub"]),
        ("elsewhere/script.py", "here", ["elsewhere", "here"]),
        ("module:create", "here", ["here", "src", "src/package", "src/package/sub"]),
        ("app:create", "here", ["here"]),
        ("missing:create", "here", ["here"]),
        ("json:create", "here", ["here", os.path.dirname(__import__("json").__file__)]),
    ],
)
def test_directories(tmp_path, monkeypatch, target, app_dir, expected):
    """Those of the target's outermost package, or of its file, and the one to import from."""
    for name in ("src/package/__init__.py", "src/package/sub/__init__.py", "src/package/sub/app.py", "src/module.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("here/app.py", "elsewhere/script.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    files = source_files(Settings(target=target, app_dir=app_dir, reload=True))
    assert sorted(files.directories) == sorted(os.path.join(tmp_path, name) for name in expected)


def test_very_many_files(tmp_path, monkeypatch, caplog):
    """A line says how to have fewer."""
    monkeypatch.setattr(reload, "_MANY_FILES", 2)
    for number in range(3):
        (tmp_path / f"{number}.py").touch()
    source_files(Settings(target="app:create", app_dir=str(tmp_path), reload=True))
    assert f'--reload watches 3 files below "{tmp_path}", which takes time.' in caplog.text
