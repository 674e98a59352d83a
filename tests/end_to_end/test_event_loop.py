from __future__ import annotations

import re
import signal
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import DEADLINE, samples, wait_for

from hr_prometheus.event_loop.culprit import BACKGROUND, BUSY, STOPPED

#: Seconds for which the application blocks its loop each time, and those between two heartbeats. Of each block at least the
#: difference is known.
BLOCK = 0.4
BEAT = 0.1
LOOPS = ("asyncio", "uvloop")


def get(url) -> str:
    with urllib.request.urlopen(url, timeout=DEADLINE) as response:
        return response.read().decode()


def blocked(service, name="total") -> dict[str, float]:
    """Return the blocks, or their seconds, by the label ``path``."""
    name = f"asyncio_event_loop_blocked_{name}"
    pattern = rf'{name}{{.*path="(.*)"}}'
    scraped = samples(get(f"{service.metrics_url}?name[]={name}"))
    return {match[1]: value for key, value in scraped.items() if (match := re.fullmatch(pattern, key))}


def routes(service) -> set[str]:
    """Return the routes that are blamed. A busy machine may block a loop as well, which is blamed on none."""
    return {path for path in blocked(service) if path.startswith("/")}


@pytest.fixture
def run(serve):
    def start(loop, *arguments):
        if loop == "uvloop":
            pytest.importorskip("uvloop")
        return serve(
            "blocking:create_app", "--port", "0", "--metrics-port", "0", "--loop", loop, "--fixed-route", "*",
            "--exclude", "/excluded", *arguments, HR_PROMETHEUS_BLOCKED_AFTER="",
        )  # fmt: skip

    return start


def block(service, cause, path) -> None:
    """Have *cause* block the loop, while other requests wait, until the seconds of a block are blamed on *path*."""

    def is_counted() -> object:
        before = blocked(service, "seconds_total").get(path, 0)
        with ThreadPoolExecutor() as pool:
            waits = [pool.submit(get, f"{service.url}/waits") for _ in range(2)]
            time.sleep(BLOCK / 4)  # so that they wait by then
            cause()
            for each in waits:
                each.result()
        time.sleep(3 * BEAT)  # it is counted one beat later
        after = blocked(service, "seconds_total")
        return after.get(path, 0) - before >= BLOCK - BEAT or (path, after)

    wait_for(is_counted, lambda answer: answer is True)


KINDS = {
    "/handler": "/handler",
    "/nested": "/nested",
    "/computes": "/computes",
    "/dumps": "/dumps",
    "/keeps_the_lock": "/keeps_the_lock",
    "/in_middleware": "/in_middleware",
    "/on_prepare": "/on_prepare",
    "/streamed": "/streamed",
    "/after_its_end": "/after_its_end",
    "/view": "/view",
    "/task/1": "/task/{name}",
    "/in_background": "background",
    "/waits_for_a_task": "background",
    "/in_callback": "background",
    "/excluded": "background",
    "/collects": "gc",
    "/in_thread": "thread",
    "/in_sleeping_thread": "thread",
}


@pytest.mark.parametrize("loop", LOOPS)
def test_each_block_is_blamed_on_what_has_held_the_loop(run, loop):
    """A request in whatever part of it, a task, a callback or garbage collection; nothing that only waits."""
    service = run(loop)
    for asked, path in KINDS.items():
        block(service, lambda: get(service.url + asked), path)  # noqa: B023  # it is called at once
    assert routes(service) == {path for path in KINDS.values() if path.startswith("/")}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_handler_of_a_signal_is_in_the_background(run, loop):
    """It interrupts whatever runs, which is not blamed."""
    service = run(loop)
    block(service, lambda: service.process.send_signal(signal.SIGUSR1), "background")
    assert not routes(service)
    assert "by a signal handler, at blocking.py:" in service.stop()[2]


@pytest.mark.parametrize("loop", LOOPS)
def test_the_time_of_a_stopped_process_is_blamed_on_no_request(run, loop):
    """It is the system's, however many requests have waited."""
    service = run(loop)

    def stop_and_go_on() -> None:
        service.process.send_signal(signal.SIGSTOP)
        time.sleep(BLOCK)
        service.process.send_signal(signal.SIGCONT)

    block(service, stop_and_go_on, STOPPED)
    assert not routes(service)
    assert "by the system: the process was stopped" in service.stop()[2]


@pytest.mark.parametrize("loop", LOOPS)
def test_many_short_steps_are_blamed_on_no_request(run, loop):
    """Together they hold the loop, and each of them only for a moment."""
    service = run(loop)
    block(service, lambda: get(f"{service.url}/in_turns"), BUSY)
    assert not routes(service)


@pytest.mark.parametrize(("loop", "path"), [("asyncio", BACKGROUND), ("uvloop", BUSY)])
def test_what_follows_a_callback_in_c_is_not_blamed(run, loop, path):
    """The callback keeps the interpreter lock, so all that is seen under uvloop is the request that comes next."""
    service = run(loop)
    block(service, lambda: get(f"{service.url}/in_c_callback"), path)
    assert not routes(service)


def test_a_place_in_the_code_is_warned_of_once(run):
    """The warning has the seconds, the request and the place; the counter has the rest."""
    service = run("asyncio")
    for _ in range(2):
        block(service, lambda: get(f"{service.url}/handler"), "/handler")
    _, _, errors = service.stop()
    place = r"The event loop was blocked for 0\.\d\d s by GET /handler, at blocking\.py:\d+ in handler\."
    assert len(re.findall(place, errors)) == 1
    assert errors.count("in handler") == 1


def test_with_workers_the_blocks_of_all_add_up(run):
    """The tasks are counted for each worker, with its label."""
    service = run("asyncio", "--workers", "2")
    block(service, lambda: get(f"{service.url}/handler"), "/handler")
    scraped = wait_for(
        lambda: samples(get(service.metrics_url)), lambda each: 'asyncio_event_loop_tasks{worker="1"}' in each
    )
    assert scraped['asyncio_event_loop_tasks{worker="0"}'] > 0
    assert scraped["asyncio_event_loop_lag_seconds_count"] > 0
    assert scraped["asyncio_event_loop_cpu_seconds_total"] > 0


@pytest.mark.parametrize("arguments", [("--no-loop-metrics",), ("--blocked-after", "0")])
def test_what_is_switched_off_has_no_thread(run, arguments):
    """Without loop metrics there is none of them; without a watchdog there are no blocks."""
    service = run("asyncio", *arguments)
    get(f"{service.url}/handler")
    names = {name.partition("{")[0] for name in samples(get(service.metrics_url)) if "event_loop" in name}
    assert not any("blocked" in name for name in names)
    assert bool(names) == ("--blocked-after" in arguments)
    tasks = Path(f"/proc/{service.process.pid}/task")
    assert (
        not [each for each in tasks.iterdir() if "watchdog" in (each / "comm").read_text()] if tasks.exists() else True
    )


def test_a_script_is_measured_as_well(serve):
    """Its loop is the one in which it serves."""
    service = serve("script.py", "--port", "0")
    wait_for(lambda: samples(get(service.metrics_url)), lambda each: each.get("asyncio_event_loop_lag_seconds_count"))
