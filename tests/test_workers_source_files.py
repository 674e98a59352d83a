"""Which files are watched, and which have changed since the last look."""

from __future__ import annotations

import os
import shutil

import pytest

from hr_prometheus.workers.source_files import SourceFiles


def write(path, text="x = 1\n") -> str:
    """Write a file and the directories above it, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def saves(files: SourceFiles) -> tuple[list[str], list[str]]:
    """Look, and return the names of the files that have changed, and of those that were touched only."""
    files.look()
    result = files.take_saves()
    changed = [os.path.basename(path) for path in result.changed]
    return changed, [os.path.basename(path) for path in result.touched if path not in result.changed]


@pytest.fixture
def app(tmp_path):
    """A file that is watched, of a minute ago."""
    write(tmp_path / "app.py")
    os.utime(tmp_path / "app.py", (0, 0))
    return tmp_path / "app.py"


def test_nothing_has_changed(app):
    """What is there at first is no change."""
    files = SourceFiles([str(app.parent)])
    assert files.number == 1
    assert not files.look()
    assert saves(files) == ([], [])


def test_a_save_that_changes_nothing_is_a_touch(app):
    """Its content is what counts, not its time."""
    files = SourceFiles([str(app.parent)])
    write(app)
    assert files.look()
    assert not files.look()
    assert saves(files) == ([], ["app.py"])
    assert saves(files) == ([], [])


def test_a_change_counts_once(app):
    """Whether it is a write or an editor's rename of a new file to the old name."""
    files = SourceFiles([str(app.parent)])
    write(app, "x = 2\n")
    assert saves(files) == (["app.py"], [])
    write(app.with_name("app.py.tmp"), "x = 3\n")
    app.with_name("app.py.tmp").replace(app)
    assert saves(files) == (["app.py"], [])
    assert saves(files) == ([], [])


def test_a_change_that_is_taken_back_is_none(app):
    """As when a branch is checked out and the old one again."""
    files = SourceFiles([str(app.parent)])
    write(app, "x = 2\n")
    files.look()
    write(app)
    assert saves(files) == ([], ["app.py"])


def test_a_time_that_goes_back_is_a_change(app):
    """As that of a file from an archive."""
    files = SourceFiles([str(app.parent)])
    write(app, "x = 2\n")
    os.utime(app, (-1000, -1000))
    assert saves(files) == (["app.py"], [])


def test_files_come_and_go(app):
    """Also with directories, and directories in them."""
    files = SourceFiles([str(app.parent)])
    directory = app.parent / "new" / "newer"
    write(directory / "module.py")
    assert saves(files) == (["module.py"], [])
    write(directory / "other.py")
    assert saves(files) == (["other.py"], [])
    shutil.rmtree(directory.parent)
    assert saves(files) == (["module.py", "other.py"], [])
    write(directory / "module.py")
    assert saves(files) == (["module.py"], [])
    app.unlink()
    assert saves(files) == (["app.py"], [])


def test_the_newest_files(app):
    """A change of one that was written last can be seen without a look at all others."""
    for number in range(100):
        os.utime(write(app.parent / f"old{number}.py"), (1, 1))
    files = SourceFiles([str(app.parent)])
    os.utime(app, (2, 2))
    assert not files.newest_differ()
    assert saves(files) == ([], ["app.py"])
    assert not files.newest_differ()
    write(app, "x = 2\n")
    assert files.newest_differ()
    assert saves(files) == (["app.py"], [])
    app.unlink()
    assert files.newest_differ()
    assert saves(files) == (["app.py"], [])
    assert not files.newest_differ()


def test_a_directory_may_be_away_for_a_while(tmp_path):
    """As one that git removes and makes again."""
    files = SourceFiles([str(tmp_path / "package")])
    assert files.directories == []
    write(tmp_path / "package" / "app.py")
    assert saves(files) == (["app.py"], [])
    assert files.directories == [str(tmp_path / "package")]
    shutil.rmtree(tmp_path / "package")
    assert saves(files) == (["app.py"], [])
    write(tmp_path / "package" / "app.py")
    assert saves(files) == (["app.py"], [])


def test_files_that_are_written_while_a_directory_is_read(tmp_path):
    """The file system's clock has not ticked between the two."""
    files = SourceFiles([str(tmp_path)])
    for number in range(300):
        write(tmp_path / f"module{number}.py")
        files.look()
    os.utime(tmp_path, (0, 0))
    assert len(saves(files)[0]) == 300


@pytest.mark.parametrize(
    "path",
    [
        ".app.py.swp", ".app.py", ".#app.py", "app.py~", "4913", "app.pyc", "app.txt", "app.py.tmp", "__pycache__/app.py",
        ".git/app.py", ".venv/lib/app.py", "node_modules/app.py", "lib/site-packages/app.py", "env/lib/app.py",
        "deep/.tox/app.py",
    ],
)  # fmt: skip
def test_what_is_left_out(tmp_path, path):
    """Hidden files, what editors leave, caches, repositories and virtual environments."""
    write(tmp_path / "env" / "pyvenv.cfg")
    files = SourceFiles([str(tmp_path)])
    write(tmp_path / path)
    assert saves(files) == ([], [])


def test_a_directory_that_is_named_is_watched_itself(tmp_path):
    """Wherever it is."""
    root = tmp_path / ".hidden" / "site-packages"
    files = SourceFiles([str(root)])
    write(root / "app.py")
    assert saves(files) == (["app.py"], [])


def test_directories_in_each_other(tmp_path):
    """A file in both is one."""
    write(tmp_path / "inner" / "app.py")
    assert SourceFiles([str(tmp_path), str(tmp_path / "inner"), str(tmp_path)]).number == 1


def test_more_patterns(tmp_path, monkeypatch):
    """Of names, or of paths if they have a slash."""
    monkeypatch.chdir(tmp_path)
    files = SourceFiles(["."], ["*.py", "*.html", "static/*.js"])
    for name in ("a.py", "b.html", "c.js", "static/d.js", "static/deep/e.js", "other/f.js"):
        write(tmp_path / name)
    assert saves(files) == (["a.py", "b.html", "d.js", "e.js"], [])


@pytest.mark.parametrize("pattern", ["tests", "tests/", "test*", "./tests", "src/../tests", "tests/*", "{root}/tests"])
def test_what_is_excluded(tmp_path, monkeypatch, pattern):
    """A directory with all that is in it, by its name, its path or a pattern."""
    monkeypatch.chdir(tmp_path)
    files = SourceFiles(["."], exclude=[pattern.format(root=tmp_path)])
    write(tmp_path / "tests" / "a.py")
    write(tmp_path / "tests" / "deep" / "b.py")
    write(tmp_path / "src" / "c.py")
    assert saves(files) == (["c.py"], [])


def test_a_current_directory_whose_name_looks_like_a_pattern(tmp_path, monkeypatch):
    """It is none."""
    (tmp_path / "[a]").mkdir()
    monkeypatch.chdir(tmp_path / "[a]")
    files = SourceFiles(["."], exclude=["gen/*.py"])
    write(tmp_path / "[a]" / "gen" / "a.py")
    write(tmp_path / "[a]" / "b.py")
    assert saves(files) == (["b.py"], [])


def test_excluded_files(tmp_path):
    """By their names."""
    files = SourceFiles([str(tmp_path)], exclude=["*_pb2.py"])
    write(tmp_path / "service_pb2.py")
    write(tmp_path / "service.py")
    assert saves(files) == (["service.py"], [])


def test_links_to_files(tmp_path):
    """They are followed, and the directories that they lead to give notifications. A link to nowhere or to itself is no file."""
    write(tmp_path / "elsewhere" / "app.py")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked.py").symlink_to(tmp_path / "elsewhere" / "app.py")
    (root / "nowhere.py").symlink_to(tmp_path / "nothing.py")
    (root / "itself.py").symlink_to(root / "itself.py")
    files = SourceFiles([str(root)])
    assert files.number == 1
    assert files.directories == [str(root), str(tmp_path / "elsewhere")]
    write(tmp_path / "elsewhere" / "app.py", "x = 2\n")
    assert saves(files) == (["linked.py"], [])
    (root / "linked.py").unlink()
    assert saves(files) == (["linked.py"], [])
    assert files.directories == [str(root)]


def test_links_to_directories(tmp_path):
    """Those to packages are followed, and no others. One that leads back is the end."""
    write(tmp_path / "package" / "__init__.py")
    write(tmp_path / "package" / "deep" / "module.py")
    write(tmp_path / "data" / "module.py")
    root = tmp_path / "root"
    write(root / "own" / "__init__.py")
    for link, target in (
        ("linked", tmp_path / "package"),
        ("again", tmp_path / "package"),
        ("data", tmp_path / "data"),
        ("alias", root / "own"),
        ("nowhere", tmp_path / "nothing"),
    ):
        (root / link).symlink_to(target)
    (root / "own" / "cycle").symlink_to(root / "own")
    (tmp_path / "package" / "deep" / "back").symlink_to(root / "own")
    files = SourceFiles([str(root)])
    assert files.number == 3
    write(tmp_path / "package" / "deep" / "module.py", "x = 2\n")
    write(tmp_path / "data" / "module.py", "x = 2\n")
    write(root / "own" / "__init__.py", "x = 2\n")
    assert saves(files) == (["module.py", "__init__.py"], [])
    write(tmp_path / "package" / "deep" / "other.py")
    assert saves(files) == (["other.py"], [])


def test_a_linked_package_that_is_left_out(tmp_path):
    """By the name of its link, or of a directory in it."""
    write(tmp_path / "package" / "__init__.py")
    write(tmp_path / "package" / "deep" / "module.py")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "package")
    assert SourceFiles([str(root)], exclude=["linked"]).number == 0
    assert SourceFiles([str(root)], exclude=[f"{root}/linked/deep"]).number == 1


def test_what_cannot_be_read(tmp_path, monkeypatch):
    """Is left out, and nothing else: a directory may belong to somebody else."""
    write(tmp_path / "secret" / "app.py")
    write(tmp_path / "own" / "app.py")
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(path) == "secret":  # as the system does for all but root
            raise PermissionError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert SourceFiles([str(tmp_path)]).number == 1
