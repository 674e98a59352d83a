"""The file by which Prometheus discovers a process."""

from __future__ import annotations

import json
import os
import signal
import threading
from urllib.parse import urlsplit

import pytest
from conftest import DEADLINE, hr_prometheus, read_line, wait_for
from test_serving import get

from hr_prometheus.server.target_file import TargetFile

PROCESSES = pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one process", "workers"])


def targets_in(directory) -> dict[str, dict[str, str]]:
    """Return the labels of the targets in a directory, by target, as Prometheus reads them: not of a file that is being written."""
    return {
        target: group["labels"]
        for path in directory.glob("hr-prometheus-*.json")
        for group in json.loads(path.read_text())
        for target in group["targets"]
    }


@PROCESSES
@pytest.mark.parametrize("own_port", [True, False])
def test_it_is_there_while_the_process_is_served(serve, tmp_path, workers, own_port):
    """It says where the metrics are; after a stop, and after the next start of one that was killed, it is gone."""
    options = ("--metrics-path", "/m", *(("--metrics-port", "0") if own_port else ()), *workers)
    services = [serve("served:create_app", "--port", "0", "--file-sd", str(tmp_path), *options) for _ in range(2)]
    urls = [urlsplit(service.metrics_url) for service in services]
    assert targets_in(tmp_path) == {url.netloc: {"__scheme__": "http", "__metrics_path__": "/m"} for url in urls}
    assert services[0].stop()[0] == 0
    assert set(targets_in(tmp_path)) == {urls[1].netloc}
    services[1].process.send_signal(signal.SIGKILL)
    services[1].process.wait(DEADLINE)
    third = serve("served:create_app", "--port", "0", "--file-sd", str(tmp_path), *options)
    assert set(targets_in(tmp_path)) == {urlsplit(third.metrics_url).netloc}


@pytest.mark.parametrize("options", [(), ("--metrics-port", "0")], ids=["", "own port"])
@pytest.mark.parametrize(
    ("way", "number"),
    [("", signal.SIGINT), ("", signal.SIGTERM), ("", signal.SIGHUP), ("--gather", signal.SIGTERM), ("--thread", None)],
)
def test_a_script_with_runners_of_its_own(serve, tmp_path, way, number, options):
    """Its first metrics are in the file, once; it is gone after a signal, also one that the script does not handle."""
    service = serve("script_with_runners.py", "--file-sd", str(tmp_path), *options, "--", *filter(None, [way]))
    (target,) = wait_for(lambda: targets_in(tmp_path), bool)
    lines = [service.announcement, *(read_line(service.process) for _ in range(2))]  # in any order
    assert any(f"metrics on http://{target}/metrics " in line for line in lines)
    assert "asyncio_event_loop" in get(f"http://{target}/metrics")[1]
    if number is None:  # nothing can be done in another thread; the next start removes it
        service.process.kill()
        service.process.wait(DEADLINE)
        service, number = serve("script_with_runners.py", "--file-sd", str(tmp_path), *options), signal.SIGTERM
        wait_for(lambda: [*targets_in(tmp_path)] not in ([], [target]), bool)
    code, _, error = service.stop(number)
    assert not list(tmp_path.iterdir())
    assert (code, error) == (0 if number == signal.SIGINT else -number, "")


STOPS = """
import asyncio
from aiohttp import web
async def main():
    stop = asyncio.Event()
    async def handle(request):
        stop.set()
        return web.Response()
    app = web.Application()
    app.router.add_get('/stop', handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.{site}.start()
    await stop.wait()
    await runner.cleanup()
    print('cleaned up', flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


def test_a_script_that_serves_no_more(serve, tmp_path):
    """The file is gone with the last clean-up, although the script goes on."""
    (tmp_path / "targets").mkdir()
    (tmp_path / "script.py").write_text(STOPS.format(site="TCPSite(runner, '127.0.0.1', 0)"))
    service = serve("script.py", "--file-sd", "targets", cwd=tmp_path)
    assert len(targets_in(tmp_path / "targets")) == 1
    get(service.url + "/stop")
    assert read_line(service.process) == "cleaned up\n"
    assert not targets_in(tmp_path / "targets")
    assert service.stop()[0] == -signal.SIGTERM


def test_a_script_that_prometheus_cannot_scrape(serve, tmp_path):
    """It is served, and a warning says what is missing."""
    (tmp_path / "script.py").write_text(STOPS.format(site="UnixSite(runner, 's')"))
    service = serve("script.py", "--file-sd", ".", cwd=tmp_path)
    error = service.stop()[2]
    assert '--file-sd ".": the metrics are on the Unix socket unix:s' in error
    assert error.count("\n") == 1
    assert not [*tmp_path.glob("hr-prometheus-*")]


@PROCESSES
def test_it_goes_with_the_address_of_the_application(serve, tmp_path, workers):
    """Where that has the metrics, clients are refused as soon as a stop begins, whatever it waits for."""
    (tmp_path / "targets").mkdir()
    service = serve("served:app", "--port", "0", "--file-sd", str(tmp_path / "targets"), *workers)
    assert targets_in(tmp_path / "targets")
    thread = threading.Thread(target=get, args=[f"{service.url}/slow?file={tmp_path}/go"])
    thread.start()
    read_line(service.process)
    service.process.send_signal(signal.SIGTERM)
    assert read_line(service.process).startswith("Stopping: ")
    assert not list((tmp_path / "targets").iterdir())
    (tmp_path / "go").touch()
    thread.join(DEADLINE)
    assert service.process.wait(DEADLINE) == 0


def test_two_processes_of_one_number(tmp_path):
    """As two containers have them that share the directory."""
    with (
        TargetFile(str(tmp_path), "http://127.0.0.1:1/m") as first,
        TargetFile(str(tmp_path), "http://[::1]:2/m") as second,
    ):
        first.publish()
        second.publish()
        assert set(targets_in(tmp_path)) == {"127.0.0.1:1", "[::1]:2"}
    assert not list(tmp_path.iterdir())


def test_a_process_that_was_forked(tmp_path, monkeypatch):
    """It leaves the file of the process that has forked it."""
    file = TargetFile(str(tmp_path), "http://127.0.0.1:1/m")
    with file:
        file.publish()
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)
            file.__exit__(None, None, None)
        assert set(targets_in(tmp_path)) == {"127.0.0.1:1"}
    assert not list(tmp_path.iterdir())


def test_other_files_stay(serve, tmp_path):
    """Those of other programs, and of this one elsewhere."""
    for name in ("shop.json", "hr-prometheus-1.json.bak"):
        (tmp_path / name).write_text("[]")
    service = serve("served:create_app", "--port", "0", "--file-sd", str(tmp_path))
    assert service.stop()[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"shop.json", "hr-prometheus-1.json.bak"}


@PROCESSES
def test_a_process_that_fails_leaves_none(tmp_path, workers):
    """Prometheus does not look for what has never been served."""
    done = hr_prometheus("run", "raises_on_import:app", "--port", "0", "--file-sd", str(tmp_path), *workers)
    assert done.returncode == 3
    assert not list(tmp_path.iterdir())


def test_prometheus_discovers_it(serve, tmp_path, prometheus):
    """At the address of this machine, where it listens at all of them."""
    everywhere = "0.0.0.0"  # noqa: S104
    options = ("--metrics-port", "0", "--metrics-host", everywhere, "--file-sd", str(tmp_path))
    service = serve("served:create_app", "--port", "0", *options)
    ((target, labels),) = targets_in(tmp_path).items()
    assert target == f"127.0.0.1:{urlsplit(service.metrics_url).port}"
    assert "# TYPE" in get(f"{labels['__scheme__']}://{target}{labels['__metrics_path__']}")[1]
    prometheus.discover("discovered", tmp_path / "hr-prometheus-*.json")
    wait_for(lambda: prometheus.query('up{job="discovered"} == 1'), bool)


@pytest.mark.parametrize(
    ("directory", "options", "sentence"),
    [
        ("none", (), '--file-sd "none" is not a directory. Expected one from which Prometheus reads its targets.'),
        (
            ".",
            ("--unix-path", "s"),
            '--file-sd ".": the metrics are on the Unix socket unix:s, and Prometheus scrapes TCP',
        ),
    ],
)
@PROCESSES
def test_a_directory_that_cannot_be_used(directory, options, sentence, workers):
    """It is one sentence, before anything is served."""
    done = hr_prometheus("run", "served:create_app", "--file-sd", directory, *options, *workers)
    assert done.stderr.startswith(f"Error: {sentence}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_a_directory_that_cannot_be_written_to():
    """What the operating system refuses is one sentence."""
    done = hr_prometheus("run", "served:create_app", "--port", "0", "--file-sd", "/proc")
    assert (done.returncode, done.stderr) == (1, 'Error: --file-sd "/proc": No such file or directory.\n')
