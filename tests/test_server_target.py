from __future__ import annotations

import sys

import pytest
from aiohttp import web

from hr_prometheus.errors import ApplicationError, TargetError
from hr_prometheus.server.importer import application_error
from hr_prometheus.server.target import Target, load_target, not_an_application_error, parse_target


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    """Loading changes sys.path, sys.argv and sys.modules; put them back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


@pytest.mark.parametrize(
    ("text", "target", "is_file"),
    [
        ("app", Target("app", "app", None), False),
        ("pkg.app:create_app", Target("pkg.app:create_app", "pkg.app", "create_app"), False),
        ("pkg.app:Holder.app", Target("pkg.app:Holder.app", "pkg.app", "Holder.app"), False),
        ("dir/app.py:app", Target("dir/app.py:app", "dir/app.py", "app"), True),
        ("app.py", Target("app.py", "app.py", None), True),
        ("./script", Target("./script", "./script", None), True),
        ("c:dir/app.py:app", Target("c:dir/app.py:app", "c:dir/app.py", "app"), True),
    ],
)
def test_targets(text, target, is_file):
    """Modules, files and scripts, with dotted attributes or none."""
    assert parse_target(text) == target
    assert parse_target(text).is_file is is_file


@pytest.mark.parametrize("text", ["", ":", ":app", "app:", "my-app:app", "app:1x", "..app:x", "a b", "app:a..b"])
def test_targets_that_are_none(text):
    """Each is quoted, with the forms that a target can have."""
    with pytest.raises(TargetError, match='is not understood. Expected "module:attribute"'):
        parse_target(text)


def write(tmp_path, body) -> str:
    (tmp_path / "made_here.py").write_text(f"from aiohttp import web\n{body}\n")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("body", "arguments", "seen"),
    [
        ("def make(): return app(())", [], ()),
        ("def make(): return app(())", ["a"], ()),
        ("def make(argv): return app(argv)", [], []),
        ("def make(argv): return app(argv)", ["a", "b"], ["a", "b"]),
        ("def make(argv=None): return app(argv)", [], None),
        ("def make(argv=None): return app(argv)", ["a"], ["a"]),
        ("def make(first=1, second=2): return app((first, second))", ["a"], (1, 2)),
        ("def make(*args, **kwargs): return app((args, kwargs))", ["a"], ((), {})),
        ("class make(str):\n    def __new__(cls): return app('class')", [], "class"),
    ],
)
def test_how_a_factory_is_called(tmp_path, body, arguments, seen):
    """With nothing, or with the list of arguments if it wants one or can take it and there are some."""
    body += (
        "\ndef app(seen):\n    application = web.Application()\n    application['seen'] = seen\n    return application"
    )
    app = load_target(parse_target("made_here:make"), arguments, write(tmp_path, body))
    assert app["seen"] == seen
    assert sys.argv == ["made_here:make", *arguments]


def test_the_directory_comes_first(tmp_path):
    """A module in the application's directory wins over any other of its name."""
    (tmp_path / "json.py").write_text("from aiohttp import web\napp = web.Application()\n")
    sys.modules.pop("json", None)
    assert isinstance(load_target(parse_target("json:app"), [], str(tmp_path)), web.Application)


async def test_an_awaitable_is_left_to_the_loop(tmp_path):
    """An async factory is called, not awaited."""
    value = load_target(
        parse_target("made_here:make"), [], write(tmp_path, "async def make(): return web.Application()")
    )
    assert isinstance(await value, web.Application)


def test_run_app_is_put_back(tmp_path):
    """The replacement lasts no longer than the loading."""
    original = web.run_app
    with pytest.raises(TargetError, match="so it is a script"):
        load_target(parse_target("made_here:app"), [], write(tmp_path, "web.run_app(web.Application())"))
    assert web.run_app is original


def test_values_that_are_no_application():
    """The type of the value is named."""
    assert "its value is of type int" in str(not_an_application_error("m:a", 42))
    assert "its value is None" in str(not_an_application_error("m:a", None))


def test_the_traceback_of_a_failure_is_the_applications_own(tmp_path):
    """Our frames and those of the import machinery are cut; the application's stay."""
    with pytest.raises(ApplicationError, match="RuntimeError: on purpose") as caught:
        load_target(
            parse_target("made_here:app"), [], write(tmp_path, "def f(): raise RuntimeError('on purpose')\nf()")
        )
    frames = []
    traceback = caught.value.__cause__.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert frames == ["<module>", "f"]


def test_a_failure_without_words():
    """An exception without a text is named by its type alone."""
    assert str(application_error("it failed", ValueError())) == "it failed: ValueError"
