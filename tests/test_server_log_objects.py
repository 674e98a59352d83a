"""What the file of --log-config needs that is missing, before anything in it is made."""

from __future__ import annotations

import json
import os

import pytest

from hr_prometheus.errors import SettingError
from hr_prometheus.server.log_objects import check_log_objects
from hr_prometheus.server.logs import configure_logging
from hr_prometheus.settings import Settings


def settings_of(directory, **parts: object) -> Settings:
    """Write a configuration of logging to a file in a directory that has a module, and return the settings."""
    (directory / "myproj.py").write_text("raise SystemExit('imported')\n")
    (directory / "log.json").write_text(json.dumps({"version": 1, **parts}))
    return Settings(target="", log_config=str(directory / "log.json"), app_dir=str(directory))


@pytest.mark.parametrize(
    "parts",
    [
        {"handlers": {"a": {"class": "nowhere.Handler"}}},
        {"handlers": {"a": {"()": "nowhere.make"}}},
        {"handlers": {"a": {"class": "logging.Nothing"}}},
        {"handlers": {"a": {"class": "logging.handlers.Nothing"}}},
        {"handlers": {"a": {"class": "logging.FileHandler", "filename": "none/log"}}},
        {"handlers": {"a": {"class": "logging.handlers.RotatingFileHandler", "filename": "."}}},
        {"formatters": {"a": {"()": "nowhere.Formatter"}}},
        {"filters": {"a": {"()": "nowhere.Filter"}}},
    ],
    ids=str,
)
def test_what_is_missing(tmp_path, monkeypatch, parts):
    """The sentence is that of its use."""
    monkeypatch.chdir(tmp_path)
    settings = settings_of(tmp_path, **parts)
    with pytest.raises(SettingError) as checked:
        check_log_objects(settings)
    with pytest.raises(SettingError) as used:
        configure_logging(settings)
    assert str(checked.value) == str(used.value)


@pytest.mark.parametrize(
    "member",
    [
        {"class": "logging.StreamHandler"},
        {"class": "logging.handlers.SysLogHandler"},
        {"class": "logging.FileHandler", "filename": "log"},
        {"class": "logging.FileHandler", "filename": "none/log", "delay": True},
        {"class": "logging.FileHandler", "filename": "ext://sys.prefix"},
        {"class": "myproj.Handler"},
        {"()": "ext://myproj.make"},
        {"class": 3},
    ],
    ids=str,
)
def test_what_may_be_there(tmp_path, monkeypatch, member):
    """The application's modules are not imported, and no file is made."""
    monkeypatch.chdir(tmp_path)
    check_log_objects(settings_of(tmp_path, handlers={"a": member}))
    assert sorted(os.listdir(tmp_path)) == ["log.json", "myproj.py"]
