"""How changes of files are noticed."""

from __future__ import annotations

import asyncio
import builtins
import importlib.util
import os
import threading
from contextlib import aclosing, suppress

import pytest
from conftest import DEADLINE

from hr_prometheus.workers import file_watch
from hr_prometheus.workers.file_watch import FileWatch
from hr_prometheus.workers.source_files import SourceFiles


@pytest.fixture(params=["poll", "watchfiles"])
def way(request, monkeypatch) -> str:
    """How files are watched."""
    if request.param == "poll":
        monkeypatch.setattr(file_watch, "find_spec", lambda _name: None)
    elif importlib.util.find_spec("watchfiles") is None:
        pytest.skip("watchfiles is not installed")
    return request.param


@pytest.fixture
async def watch(way, tmp_path):
    """A function that waits for the next save, and returns the names of the files that have changed."""
    async with aclosing(FileWatch(SourceFiles([str(tmp_path)])).saves()) as saves:
        task: asyncio.Task | None = None

        def start() -> None:
            nonlocal task
            task = asyncio.ensure_future(anext(saves))

        async def next_save() -> list[str]:
            async with asyncio.timeout(DEADLINE):
                result = await task
            start()
            return [os.path.basename(path) for path in result.changed]

        start()
        while way == "watchfiles" and not has_watches():
            await asyncio.sleep(0.001)
        yield next_save
        task.cancel()
        await asyncio.wait([task])


def has_watches() -> bool:
    """Whether this process has watches of the kernel's."""
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if "inotify" in os.readlink(f"/proc/self/fd/{descriptor}"):
                return True
    return False


async def test_each_save(watch, tmp_path):
    """One after the other."""
    for text in ("1", "2", "3"):
        (tmp_path / "app.py").write_text(text)
        assert await watch() == ["app.py"]


async def test_many_files_are_one_save(watch, tmp_path):
    """Also in directories that are new."""
    for number in range(500):
        directory = tmp_path / f"package{number % 7}"
        directory.mkdir(exist_ok=True)
        (directory / f"module{number}.py").write_text("x = 1")
    assert len(await watch()) == 500
    (tmp_path / "package3" / "module3.py").write_text("x = 2")
    assert await watch() == ["module3.py"]


async def test_changes_soon_after_each_other_are_one_save(monkeypatch):
    """Until a look finds no other one."""

    class Files:
        looks = 0

        def look(self) -> bool:
            self.looks += 1
            return self.looks <= 3

        def take_saves(self) -> int:
            return self.looks

    monkeypatch.setattr(file_watch, "find_spec", lambda _: None)
    async with asyncio.timeout(DEADLINE), aclosing(FileWatch(Files()).saves()) as saves:
        assert await anext(saves) == 4


async def test_unrest_is_a_save_after_a_while(watch, tmp_path, monkeypatch):
    """A file that is written all the time keeps no other change back."""
    monkeypatch.setattr(file_watch, "_LONGEST_UNREST", 0.2)

    async def write() -> None:
        number = 0
        while True:
            number += 1
            (tmp_path / "app.py").write_text("#" * number)
            await asyncio.sleep(0.01)

    writer = asyncio.create_task(write())
    assert await watch() == ["app.py"]
    writer.cancel()


async def test_a_look_that_takes_long_is_waited_for(monkeypatch):
    """Else a file that it sees while saves are taken would be lost."""

    class Files:
        looks = 0
        looks_end = threading.Event()

        def look(self) -> bool:
            self.looks += 1
            if self.looks == 2:  # while changes go on
                self.looks_end.wait()
            return True

        def take_saves(self) -> bool:
            return self.looks_end.is_set()

    files = Files()
    monkeypatch.setattr(file_watch, "_LONGEST_UNREST", 0.2)
    monkeypatch.setattr(file_watch, "find_spec", lambda _: None)
    async with asyncio.timeout(DEADLINE), aclosing(FileWatch(files).saves()) as saves:
        save = asyncio.ensure_future(anext(saves))
        while files.looks < 2:
            await asyncio.sleep(0.001)
        await asyncio.wait([save], timeout=0.4)
        files.looks_end.set()
        assert await save


async def test_watchfiles_that_fails(tmp_path, monkeypatch, caplog):
    """As where the system allows no more watches: files are looked at instead, and a line says so."""
    original = builtins.__import__

    def refuse(name, *arguments):
        if name == "watchfiles":
            raise OSError("OS file watch limit reached")
        return original(name, *arguments)

    monkeypatch.setattr(file_watch, "find_spec", lambda _name: "there")
    monkeypatch.setattr(builtins, "__import__", refuse)
    async with aclosing(FileWatch(SourceFiles([str(tmp_path)])).saves()) as saves, asyncio.timeout(DEADLINE):
        save = asyncio.ensure_future(anext(saves))
        (tmp_path / "app.py").write_text("x = 1")
        assert (await save).changed == [str(tmp_path / "app.py")]
    assert "watchfiles has failed, so files are polled instead: OS file watch limit reached" in caplog.text


async def test_looks_at_all_files_take_next_to_nothing(tmp_path, monkeypatch):
    """They become rarer with the time that one takes, but never rarer than every ten seconds."""
    watch = FileWatch(SourceFiles([str(tmp_path)]))
    clock = iter((0.0, 0.001, 1.0, 1.003, 2.0, 3.0))
    monkeypatch.setattr(file_watch, "thread_time", lambda: next(clock))
    monkeypatch.setattr(file_watch, "monotonic", lambda: 100.0)
    looks = []
    for _ in range(3):
        watch._look()
        looks.append(watch._next_look)
    assert looks == pytest.approx([100.0 + 2 / 3, 102.0, 110.0])


async def test_a_file_that_was_written_last_is_looked_at_all_the_same(tmp_path, monkeypatch):
    """As a rule it is the one that is saved next, however long it takes to look at all."""
    monkeypatch.setattr(file_watch, "find_spec", lambda _name: None)
    monkeypatch.setattr(file_watch, "_SHARE", 1e-9)
    monkeypatch.setattr(file_watch, "_LONGEST_PAUSE", 10 * DEADLINE)
    for number in range(100):
        (tmp_path / f"old{number}.py").write_text("x = 1")
        os.utime(tmp_path / f"old{number}.py", (0, 0))
    (tmp_path / "app.py").write_text("x = 1")
    watch = FileWatch(SourceFiles([str(tmp_path)]))
    watch._look()
    async with aclosing(watch.saves()) as saves, asyncio.timeout(DEADLINE):
        save = asyncio.ensure_future(anext(saves))
        (tmp_path / "app.py").write_text("x = 12")
        assert (await save).changed == [str(tmp_path / "app.py")]
