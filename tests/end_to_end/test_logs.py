"""The log: as text, as JSON, or as a file has it; and which worker has written a record."""

from __future__ import annotations

import json
import re

import pytest
from conftest import hr_prometheus
from test_serving import get

PROCESSES = pytest.mark.parametrize("workers", [(), ("--workers", "1")], ids=["one process", "workers"])
#: Logging's own format, in a file for dictConfig.
CONFIG = {
    "version": 1,
    "formatters": {"own": {"format": "own: %(levelname)s %(message)s"}},
    "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own"}},
    "root": {"level": "INFO", "handlers": ["own"]},
}
TOML = """
version = 1
formatters.own.format = "own: %(levelname)s %(message)s"
handlers.own = {class = "logging.StreamHandler", formatter = "own"}
root = {level = "INFO", handlers = ["own"]}
"""


def log_of(serve, *options: str, path: str = "/broken") -> str:
    """Return what is logged of one request."""
    service = serve("observed:create_app", "--port", "0", "--fixed-route", "*", "--access-log", *options)
    get(service.url + path)
    return service.stop()[2]


@PROCESSES
def test_json(serve, workers):
    """Each line is a record, with the number of its worker, and what the access log knows of a request."""
    records = [json.loads(line) for line in log_of(serve, "--log-format", "json", *workers).splitlines()]
    (record,) = [record for record in records if record["logger"] == "aiohttp.access"]
    assert list(record)[:4] == ["time", "level", "logger", "message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"])
    assert (record["level"], record["response_status"]) == ("INFO", 503)
    assert record["message"].startswith('127.0.0.1 "GET /broken')
    assert record.get("worker") == (0 if workers else None)


def test_an_exception_is_one_line_of_json(serve):
    """With its traceback."""
    service = serve("hanging:fails", "--port", "0", "--log-format", "json")
    get(service.url)
    (record,) = map(json.loads, service.stop()[2].splitlines())
    assert record["exception"].startswith("Traceback (most recent call last):\n")
    assert record["exception"].endswith("\nRuntimeError: no answer")


@PROCESSES
def test_text_names_the_worker(serve, workers):
    """Only where there is one."""
    name = r"aiohttp\.access \(worker 0\)" if workers else r"aiohttp\.access"
    assert re.match(rf'\d{{4}}-\d\d-\d\d [\d:,]+ INFO {name}: 127\.0\.0\.1 "GET /broken', log_of(serve, *workers))


@PROCESSES
@pytest.mark.parametrize(("name", "text"), [("log.json", json.dumps(CONFIG)), ("log.toml", TOML)])
def test_a_file(serve, tmp_path, workers, name, text):
    """It takes the place of our logging, and disables no logger that is there already."""
    (tmp_path / name).write_text(text)
    log = log_of(serve, "--log-config", str(tmp_path / name), *workers)
    assert re.search(r'^own: INFO 127\.0\.0\.1 .*"GET /broken', log, re.MULTILINE)
    assert all(line.startswith("own: ") for line in log.splitlines())


@PROCESSES
@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("none.json", None, ": No such file or directory."),
        ("log.json", "{", ": cannot be read: "),
        ("log.toml", "version", ": cannot be read: "),
        ("log.json", "[]", ": has no version."),
        ("log.json", "{}", ": has no version."),
        ("log.json", '{"version": 2}', ": cannot be used: Unsupported version: 2"),
        (
            "log.json",
            '{"version": 1, "handlers": {"h": {"class": "no.Such"}}}',
            ": cannot be used: Unable to configure handler",
        ),
        ("log.json", '{"version": 1, "handlers": 3}', ": cannot be used: "),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, workers, name, text, problem):
    """It is one sentence, with what was expected."""
    if text is not None:
        (tmp_path / name).write_text(text)
    done = hr_prometheus("run", "observed:create_app", "--port", "0", "--log-config", str(tmp_path / name), *workers)
    assert done.stderr.startswith(f'Error: --log-config "{tmp_path / name}"{problem}')
    assert "Expected a dictionary for logging.config.dictConfig" in done.stderr
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_a_script_keeps_its_logging(serve, tmp_path):
    """Unless it is asked for another one."""
    script = tmp_path / "script.py"
    script.write_text(
        "import logging\nfrom aiohttp import web\nlogging.basicConfig(format='mine %(message)s', level='INFO')\n"
        "web.run_app(web.Application(), port=0)\n"
    )
    service = serve(str(script), "--access-log")
    get(service.url)
    assert re.search(r"^mine .*GET / ", service.stop()[2], re.MULTILINE)
