"""The log: as text, as JSON, or as a file has it; and which worker has written a record."""

from __future__ import annotations

import json
import re
import socket
import textwrap
from pathlib import Path

import pytest
from conftest import hr_prometheus, read_line
from test_serving import get

from hr_prometheus.server.logs import check_log_config
from hr_prometheus.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "logs.md").read_text()
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


@pytest.mark.parametrize(
    "options", [("app:app",), ("app:app", "--workers", "1"), ("app.py",), ("app.py", "--reload")], ids=" ".join
)
def test_a_record_of_the_import(serve, tmp_path, options):
    """It has the format already."""
    (tmp_path / "app.py").write_text(
        "import logging\nfrom aiohttp import web\nlogging.getLogger('shop').warning('imported')\napp = web.Application()\n"
        "if __name__ == '__main__':\n    web.run_app(app, host='127.0.0.1', port=0)\n"
    )
    port = () if options[0] == "app.py" else ("--port", "0")
    service = serve(*options, *port, "--log-format", "json", cwd=tmp_path)
    records = [json.loads(line) for line in service.stop()[2].splitlines()]
    assert [record["message"] for record in records if record["logger"] == "shop"] == ["imported"]


@PROCESSES
def test_what_is_announced_in_json(serve, workers):
    """The lines of start and stop are records, on standard output as ever; as text they stay text."""
    service = serve("observed:create_app", "--port", "0", "--fixed-route", "*", "--log-format", "json", *workers)
    get(service.url)
    _, rest, _ = service.stop()
    start, stop = json.loads(service.announcement), json.loads(service.farewell)
    for record in (start, stop):
        assert list(record) == ["time", "level", "logger", "message"]
        assert (record["level"], record["logger"]) == ("INFO", "hr_prometheus")
    assert re.match(r"hr-prometheus: observed:create_app \(\d+ routes.* Ctrl-C to stop$", start["message"])
    assert re.match(r"Stopped after \d+\.\d s$", stop["message"])
    assert rest == ""
    service = serve("observed:create_app", "--port", "0", "--fixed-route", "*", "--log-format", "text", *workers)
    assert service.announcement.startswith("hr-prometheus: observed:create_app (")


def test_a_reload_that_fails_in_json(serve, tmp_path):
    """What has changed is a record on standard output, and the traceback is in one on standard error."""
    app = tmp_path / "app.py"
    app.write_text("from aiohttp import web\napp = web.Application()\n")
    service = serve("app:app", "--port", "0", "--log-format", "json", "--reload", cwd=tmp_path)
    app.write_text("from aiohttp import web\n1 / 0\n")
    assert json.loads(read_line(service.process))["message"] == "Reloading: app.py has changed"
    failure = json.loads(service.process.stderr.readline())
    assert list(failure) == ["time", "level", "logger", "message", "worker", "exception"]
    assert (failure["level"], failure["logger"], failure["worker"]) == ("ERROR", "hr_prometheus", 1)
    assert failure["message"] == '"app" failed while it was imported: ZeroDivisionError: division by zero'
    assert failure["exception"].startswith("Traceback (most recent call last):\n")
    assert failure["exception"].endswith("\nZeroDivisionError: division by zero")
    for line in service.stop()[2].splitlines():
        json.loads(line)


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
def test_the_worker_in_a_format_of_ones_own(serve, tmp_path, workers):
    """It is a number, or empty where there is none, whichever handler has the format; what an application names so is its own."""
    (tmp_path / "app.py").write_text(
        "import logging\nfrom aiohttp import web\n"
        "async def greet(_request):\n"
        "    logging.getLogger('shop').info('hello')\n"
        "    logging.getLogger('other').info('mine', extra={'worker': 'ada'})\n"
        "    return web.Response()\n"
        "app = web.Application()\napp.router.add_get('/', greet)\n"
    )
    own = {"class": "logging.StreamHandler", "formatter": "own"}
    config = {
        "version": 1,
        "formatters": {"own": {"format": "[%(worker)s] %(name)s %(message)s"}},
        "handlers": {"one": own, "two": own},
        "loggers": {"shop": {"handlers": ["one"], "propagate": False}},
        "root": {"level": "INFO", "handlers": ["two"]},
    }
    (tmp_path / "log.json").write_text(json.dumps(config))
    service = serve("app:app", "--port", "0", "--log-config", "log.json", "--access-log", *workers, cwd=tmp_path)
    get(service.url)
    hello, mine, access = service.stop()[2].splitlines()
    number = 0 if workers else ""
    assert (hello, mine) == (f"[{number}] shop hello", "[ada] other mine")
    assert access.startswith(f"[{number}] aiohttp.access 127.0.0.1")


def test_the_manual_shows_a_file(tmp_path):
    """Its example can be used."""
    (text,) = re.findall(r"```toml\n( *version = 1\n.*?)```", PAGE, re.DOTALL)
    (tmp_path / "log.toml").write_text(textwrap.dedent(text))
    done = hr_prometheus("config", "--check", "run", "a:b", "--log-config", "log.toml", cwd=tmp_path)
    assert done.stdout == "No errors.\n"


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
        ("log.json", '{"version": 1, "handlers": 3}', ': cannot be used: "handlers" is not a table of tables.'),
        ("log.json", '{"version": 1, "loggers": {"a": 3}}', ': cannot be used: "loggers" is not a table of tables.'),
        ("log.json", '{"version": 1, "root": []}', ': cannot be used: "root" is not a table.'),
        (
            "log.toml",
            "version = 1\nhandlers = {b = {}}\nroot.handlers = ['a']",
            ': cannot be used: the logger "root" has a handler "a", and there is none of this name.',
        ),
        ("log.json", '{"version": 1, "root": {"handlers": 3}}', ": cannot be used: "),
        ("log.json", "[" * 100_000, ": cannot be read: it is nested too deeply."),
        ("log.toml", "a = " + "[" * 5000, ": cannot be read: it is nested too deeply."),
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


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        {"version": 1, "incremental": True, "loggers": {"shop": {"level": "INFO", "handlers": ["elsewhere"]}}},
        {"version": 1, "all": ["own"], "handlers": {"own": {}}, "loggers": {"a": {"handlers": "cfg://all"}}},
        {"version": 1, "own": {}, "handlers": "cfg://own", "root": {"handlers": None}},
    ],
)
def test_a_file_that_can_be_used(tmp_path, config):
    """What stands elsewhere in it, or in the program, is not missed."""
    (tmp_path / "log.json").write_text(json.dumps(config))
    check_log_config(Settings(target="a:b", log_config=str(tmp_path / "log.json")))


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


@PROCESSES
def test_a_format_of_the_access_log(serve, workers):
    """It switches the access log on, and its fields are members of a line of JSON, too."""
    options = "--access-log-format", '%s "%r" %Tf %{X-Own}i', "--port", "0", "--fixed-route", "*", *workers
    for log_format in ("text", "json"):
        service = serve("observed:create_app", "--log-format", log_format, *options)
        get(service.url + "/broken", **{"X-Own": "mine"})
        (line,) = service.stop()[2].splitlines()
        if log_format == "text":
            assert re.search(r'aiohttp\.access.*: 503 "GET /broken HTTP/1\.1" 0\.\d{6} mine$', line)
            continue
        record = json.loads(line)
        assert re.fullmatch(r'503 "GET /broken HTTP/1\.1" 0\.\d{6} mine', record["message"])
        assert (record["response_status"], record["request_header"]) == (503, {"X-Own": "mine"})
        assert "remote_address" not in record


SCRIPT = """
import asyncio, logging
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
logging.basicConfig(format='%(message)s', level='INFO')
class Own(AbstractAccessLogger):
    def log(self, request, response, time):
        self.logger.info('own %s %s %s %s', self.log_format, request.remote, request.scheme, request['user'])
async def greet(request):
    request['user'] = 'ada'
    return web.Response(text=f'{{request.remote}} {{request.scheme}}')
app = web.Application()
app.router.add_route('*', '/', greet)
"""
RUN_APP = SCRIPT + "web.run_app(app, host='127.0.0.1', port=0, {arguments})\n"
RUNNER = (
    SCRIPT
    + """
async def main():
    runner = web.AppRunner(app, {arguments})
    await runner.setup()
    await web.TCPSite(runner, '127.0.0.1', 0).start()
    await asyncio.sleep(3600)
asyncio.run(main())
"""
)


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        ("access_log_format='script %s'", (), "script 200"),
        ("access_log_format='script %s'", ("--access-log-format", "option %s"), "option 200"),
        ("access_log=None", ("--access-log-format", "option %s"), "option 200"),
        ("access_log_class=Own, access_log_format='x'", (), "own x 127.0.0.1 http ada"),
        ("access_log_class=Own", ("--access-log-format", "%s"), "own %s 127.0.0.1 http ada"),
    ],
)
def test_the_format_of_a_script(serve, tmp_path, arguments, options, expected):
    """It holds unless the option is given. A class of the script's own is given the format as well."""
    for script in (RUN_APP, RUNNER):
        (tmp_path / "script.py").write_text(script.format(arguments=arguments))
        service = serve("script.py", *options, cwd=tmp_path)
        get(service.url + "/")
        assert service.stop(2)[2].splitlines() == [expected], script


PROXY = {"X-Forwarded-For": "192.0.2.1, 203.0.113.7", "X-Forwarded-Proto": "https"}


@PROCESSES
def test_a_client_behind_a_proxy(serve, workers):
    """The access log has its address, and in JSON its scheme, only if the proxy is trusted."""
    options = "--port", "0", "--access-log", "--fixed-route", "*", "--log-format", "json", *workers
    for peers, expected in (
        ((), ("127.0.0.1", "http")),
        (("--forwarded-allow-ips", "10.0.0.0/8"), ("127.0.0.1", "http")),
        (("--forwarded-allow-ips", "10.0.0.0/8", "--forwarded-allow-ips", "127.0.0.1"), ("203.0.113.7", "https")),
    ):
        service = serve("observed:create_app", *options, *peers)
        get(service.url, **PROXY)
        (line,) = service.stop()[2].splitlines()
        record = json.loads(line)
        assert (record["remote_address"], record["scheme"]) == expected
        assert record["message"].startswith(f'{expected[0]} "GET / HTTP/1.1" 200 ')


@pytest.mark.parametrize(
    ("script", "options", "expected"),
    [
        (RUN_APP.format(arguments="access_log_format='%a'"), (), "203.0.113.7"),
        (RUN_APP.format(arguments="access_log_class=Own, access_log_format='x'"), ("--reload",), "own x 203.0.113.7 https ada"),
        (RUNNER.format(arguments="access_log_class=Own, access_log_format='x'"), (), "own x 203.0.113.7 https ada"),
    ],
    ids=["run_app", "reload", "AppRunner"],
)  # fmt: skip
def test_a_script_behind_a_proxy(serve, tmp_path, script, options, expected):
    """Its access log, and a class of its own, have the client; its handlers have the request as it is."""
    (tmp_path / "script.py").write_text(script)
    for peers in ("127.0.0.1,unix", "10.0.0.1 127.0.0.1"):
        service = serve("script.py", *options, cwd=tmp_path, HR_PROMETHEUS_FORWARDED_ALLOW_IPS=peers)
        assert get(service.url, **PROXY) == (200, "127.0.0.1 http")
        assert service.stop(2)[2].splitlines() == [expected]


def test_a_peer_without_an_address(serve, tmp_path):
    """A proxy that asks by a Unix socket is trusted by the word for it."""
    service = serve(
        "observed:create_app", "--unix-path", str(tmp_path / "s"), "--access-log-format", "%a", "--fixed-route", "*",
        "--forwarded-allow-ips", "unix",
    )  # fmt: skip
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        client.sendall(b"GET / HTTP/1.0\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n")
        assert b"200 OK" in client.recv(100)
    assert service.stop()[2].endswith("INFO aiohttp.access: 203.0.113.7\n")


@pytest.mark.parametrize("processes", [(), ("--workers", "2")], ids=["one process", "workers"])
def test_proxies_without_an_access_log(serve, processes):
    """Nothing shows their clients, which is one warning at the start."""
    name = "HR_PROMETHEUS_FORWARDED_ALLOW_IPS"
    service = serve("served:app", "--port", "0", *processes, **{name: "*"})
    error = service.stop()[2]
    assert error.count("ignored") == 1
    text = f'{name}="*" (values are separated by spaces): ignored, because there is no access log. Give --access-log for one.'
    assert f"{text}\n" in error
    service = serve("served:app", "--port", "0", "--access-log", *processes, **{name: "*"})
    assert "ignored" not in service.stop()[2]
