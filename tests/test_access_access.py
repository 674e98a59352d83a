from __future__ import annotations

import asyncio

import pytest
from click.testing import CliRunner

from hr_prometheus.access import access
from hr_prometheus.access.access import CurrentAccess
from hr_prometheus.access.guard import Guard
from hr_prometheus.commands.group import cli
from hr_prometheus.settings import Settings


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A web configuration, whose errors are logged soon."""
    monkeypatch.setattr(access, "_PATIENCE", 0.01)
    path = tmp_path / "web.yml"
    path.write_text("{}")
    return path


def settings_of(file):
    return Settings(target="", metrics_port=0, metrics_web_config=str(file))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("http_server_config: {http2: !!bool hunter2}", " is neither true nor false."),
        ('basic_auth_users: {hunter2: "\\UFFFFFFFF"}', " is not YAML."),
        ("hunter2: x", "An entry on line 1 of "),
    ],
)
async def test_a_file_that_becomes_wrong(file, caplog, text, sentence):
    """One error says what is wrong, and shows nothing of it."""
    current = CurrentAccess(settings_of(file))
    file.write_text(text)
    earlier = current.get()
    await asyncio.sleep(0.05)
    assert current.get() is earlier
    (line,) = caplog.messages
    assert line.startswith("The metrics port keeps its earlier settings. ")
    assert sentence in line
    assert "hunter2" not in line


async def test_an_error_that_nobody_expected(file, caplog, monkeypatch):
    """The log has only its kind: its text may have a part of the file."""
    current = CurrentAccess(settings_of(file))
    file.write_text("# changed")

    def fail(*_arguments):
        raise KeyError("hunter2")

    monkeypatch.setattr(access, "read_web_config", fail)
    current.get()
    await asyncio.sleep(0.05)
    assert caplog.messages == ["The metrics port keeps its earlier settings. KeyError."]


async def test_a_rate_limit_without_a_burst(file, caplog):
    """It refuses each request, as in other exporters, and a warning says so: at the start, and when it comes later."""
    text = "rate_limit: {interval: 1s}"
    current = CurrentAccess(settings_of(file))
    file.write_text(text)
    current.get()
    Guard(settings_of(file))
    assert caplog.messages == [access.NO_BURST] * 2
    result = CliRunner().invoke(cli, ["check-web-config", str(file)])
    assert result.exit_code == 0
    assert result.output == f"Warning: {access.NO_BURST}\nNo errors.\n"
