"""Workers that die, block or reach their request limit: the effects on clients, siblings and the numbers."""

from __future__ import annotations

import asyncio
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from conftest import APPS, DEADLINE, RUN, clean_environment, read_line
from workers import (
    MARK,
    PATIENT,
    are_without,
    ask,
    children,
    is_alive,
    load,
    processes,
    scrape,
    settled,
    slots,
    until_async,
    until_up,
)

WORKERS = 3


@pytest.fixture
def mark(tmp_path) -> str:
    """The mark of a test's processes."""
    return str(tmp_path)


async def restarts(service, reason: str) -> float:
    """Return how often workers were started again for a reason."""
    metrics = await scrape(service)
    return sum(
        value
        for name, value in metrics.items()
        if name.startswith("hr_prometheus_worker_restarts_total") and f'reason="{reason}"' in name
    )


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_killed_workers_lose_no_number(serve, mark, loop):
    """Under load, every answer that a client got is counted, whichever worker was killed since; files do not become more."""
    service = serve(
        "many:create_app", "--workers", str(WORKERS), "--port", "0", "--metrics-port", "0", "--loop", loop,
        is_measured=False, **{MARK: mark, "PROMETHEUS_MULTIPROC_DIR": mark},
    )  # fmt: skip
    kills = 5
    async with load(service.url, connections=4, keep_alive=False) as client:
        await until_async(lambda: client.answered > 50)
        files = sorted(path.name for path in Path(mark).rglob("*.db"))
        for _ in range(kills):
            await until_async(lambda: len(slots(mark)) == WORKERS)
            victim = random.choice(list(slots(mark).values()))  # noqa: S311
            # A worker that serves: one that only starts has no numbers that could be lost.
            await until_async(lambda victim=victim: str(victim) in client.answers)
            os.kill(victim, signal.SIGKILL)
            await until_async(lambda victim=victim: victim not in slots(mark).values())
        async with asyncio.timeout(DEADLINE):
            while await restarts(service, "signal") < kills:  # the supervisor may not know yet
                await asyncio.sleep(0.01)
        await until_up(service, WORKERS)
    metrics = await settled(service)
    # A request in the hands of a worker that is killed may have been counted, and its client has no answer.
    assert client.answered <= metrics["answered_total"] <= client.answered + len(client.failures)
    requests = metrics['request_count_total{method="POST",path="/",status="200"}']
    # Ours are counted when the answer has left, which may be just before the end.
    assert client.answered - kills <= requests <= client.answered + len(client.failures)
    assert len(client.failures) <= kills * client.connections
    assert await restarts(service, "signal") == kills
    assert sorted(path.name for path in Path(mark).rglob("*.db")) == files
    code, _, error = service.stop()
    assert code == 0
    assert error.count("has ended, by signal 9 (SIGKILL).") == kills
    assert not slots(mark)


async def test_a_successor_starts_with_few_descriptors(serve, mark):
    """With fewer than a new service must have: better a worker that hardly can than none."""
    service = serve(
        "many:create_app", "--workers", "1", "--port", "0", "--metrics-port", "0", *PATIENT, **{MARK: mark}
    )  # fmt: skip
    pid = slots(mark)[0]
    limit = len(os.listdir(f"/proc/{pid}/fd")) + 4
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
    os.kill(pid, signal.SIGKILL)
    await until_async(lambda: slots(mark).get(0, pid) != pid)
    await until_up(service, 1)
    code, _, error = service.stop()
    assert (code, error.count("\n")) == (0, 1)


@pytest.mark.parametrize("limit", [12, 16, 20, 24])
def test_a_service_with_few_descriptors_does_not_start(limit):
    """One line says why, whatever lacks them first."""
    arguments = ("run", "many:create_app", "--workers", "2", "--port", "0", "--metrics-port", "0")
    command = [sys.executable, "-m", "hr_prometheus", *arguments]
    done = subprocess.run(
        ["/bin/sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *command],
        cwd=APPS, env=clean_environment(), capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "Too many open files" in done.stderr


@pytest.mark.parametrize("event", ["killed", "reloaded", "without their files"])
async def test_workers_and_their_successors_have_one_budget_of_labels(serve, mark, event):
    """A route has its budget of path labels and its template, however many processes have served it; no request is lost."""
    budget, new_paths, rounds = 5, 8, 3
    service = serve(
        "many:create_app_with_users", "--workers", "2", "--port", "0", "--metrics-port", "0", "--path-budget", str(budget),
        *PATIENT, **{MARK: mark, "PROMETHEUS_MULTIPROC_DIR": mark},
    )  # fmt: skip
    text = 'request_count_total{method="POST",path="/users/'

    async def requests() -> dict[str, float]:
        return {name: value for name, value in (await scrape(service)).items() if name.startswith(text)}

    for round_ in range(1, rounds + 1):
        for number in range(new_paths):
            await ask(f"{service.url}/users/{round_ * new_paths + number}")
        async with asyncio.timeout(DEADLINE):
            # A request is counted after its answer has left.
            while sum((await requests()).values()) != round_ * new_paths:
                await asyncio.sleep(0.01)
        gone = slots(mark).values()
        if event == "killed":
            for pid in gone:
                os.kill(pid, signal.SIGKILL)
        elif event == "reloaded":
            service.process.send_signal(signal.SIGHUP)
        else:
            shutil.rmtree(next(Path(mark).iterdir()))  # which replaces the workers
        await until_async(lambda gone=gone: are_without(mark, *gone))
        await until_up(service, 2)
    by_label = await requests()
    assert len(by_label) == budget + 1
    assert by_label[text + '{user}",status="200"}'] == new_paths * rounds - budget
    assert sum(by_label.values()) == new_paths * rounds


def removed_files(pid: int) -> list[str]:
    """Return the files of numbers that a process has open although they were removed."""
    links = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return [each for each in links if each.endswith((".series (deleted)", ".cells (deleted)"))]


async def test_a_directory_of_numbers_that_is_removed(serve, mark):
    """It is made again, the workers are replaced, whose other files are gone, and no count of ours is lost."""
    service = serve(
        "many:create_app", "--workers", "2", "--port", "0", "--metrics-port", "0", *PATIENT,
        **{MARK: mark, "PROMETHEUS_MULTIPROC_DIR": mark},
    )  # fmt: skip
    async with load(service.url, connections=2, keep_alive=False) as client:
        await client.until_answered_by(*slots(mark).values())
        for kill in (False, True):
            workers = slots(mark).values()
            (directory,) = Path(mark).iterdir()
            assert await scrape(service)  # what a scrape has seen stays mapped
            shutil.rmtree(directory)
            assert await scrape(service)
            if kill:
                os.kill(random.choice(list(workers)), signal.SIGKILL)  # noqa: S311
            await until_async(lambda workers=workers: are_without(mark, *workers))
    await until_up(service, 2)
    await until_async(lambda: not removed_files(service.process.pid))
    requests = (await settled(service))['request_count_total{method="POST",path="/",status="200"}']
    assert client.answered - 1 <= requests <= client.answered + len(client.failures)
    assert len(client.failures) <= client.connections
    code, _, error = service.stop()
    assert (code, error.count("was removed by another process. It is made again.")) == (0, 2)


def test_a_directory_of_numbers_that_cannot_be_made_again(serve, tmp_path):
    """The command ends, so that a service manager starts it anew, and no client waits for workers that cannot start."""
    place = tmp_path / "numbers"
    service = serve(
        "many:create_app", "--workers", "2", "--port", "0", command=RUN, PROMETHEUS_MULTIPROC_DIR=str(place)
    )
    shutil.rmtree(place)
    place.touch()
    code, _, error = service.end()
    assert code == 1
    last = error.splitlines()[-1]
    assert last.startswith(f'Error: the numbers of the workers cannot be kept ("{place}/')


async def test_files_of_numbers_that_another_process_cuts(serve, mark):
    """The supervisor goes on, and what was counted since is right."""
    service = serve(
        "many:create_app", "--workers", "1", "--port", "0", "--metrics-port", "0", *PATIENT, is_measured=False,
        **{MARK: mark, "PROMETHEUS_MULTIPROC_DIR": mark},
    )  # fmt: skip
    assert await ask(service.url)
    await settled(service)
    (victim,) = slots(mark).values()
    for file in Path(mark).glob("*/*"):
        os.truncate(file, 0)
    with suppress(ProcessLookupError):  # what it writes next ends it
        os.kill(victim, signal.SIGKILL)
    await until_async(lambda: victim not in slots(mark).values())
    await until_up(service, 1)
    assert await ask(service.url)
    assert (await settled(service))['request_count_total{method="POST",path="/",status="200"}'] == 1
    assert service.stop()[0] == 0


def test_the_last_worker_whose_numbers_cannot_be_kept(serve, mark):
    """The command ends, as without the directory; here a file of it is in the way."""
    service = serve(
        "many:create_app", "--workers", "1", "--port", "0", **{MARK: mark, "PROMETHEUS_MULTIPROC_DIR": mark}
    )
    (worker,) = slots(mark).values()
    (directory,) = (path for path in Path(mark).iterdir() if path.is_dir())
    (directory / "w0.series").unlink(missing_ok=True)
    (directory / "w0.series").mkdir()
    os.kill(worker, signal.SIGKILL)
    code, _, error = service.end()
    assert code == 1
    assert error.splitlines()[-1].startswith(f'Error: the numbers of the workers cannot be kept ("{directory}')


async def test_the_gauge_of_a_killed_worker_is_zero(serve, mark, tmp_path):
    """The requests that a worker had begun end with it."""
    service = serve("many:create_app", "--workers", "2", "--port", "0", "--metrics-port", "0", **{MARK: mark})
    waiting = asyncio.create_task(ask(f"{service.url}/wait?file={tmp_path}/never"))
    word, victim = (await asyncio.to_thread(read_line, service.process)).split()
    assert word == "waiting"
    in_progress = 'requests_in_progress{method="POST",path="/wait"}'
    metrics = await scrape(service)
    assert (metrics["in_hands"], metrics[in_progress]) == (1, 1)
    os.kill(int(victim), signal.SIGKILL)
    with pytest.raises(Exception, match="disconnected"):
        await waiting
    await until_async(lambda: are_without(mark, int(victim)))
    metrics = await scrape(service)
    assert (metrics["in_hands"], metrics[in_progress]) == (0, 0)


async def test_a_blocked_worker_delays_no_other_client(serve, mark, tmp_path):
    """New connections go to the others at once; a scrape shows the blocked worker's process and files."""
    service = serve("many:create_app", "--workers", "2", "--port", "0", "--metrics-port", "0", *PATIENT, **{MARK: mark})
    free = tmp_path / "free"
    blocked = asyncio.create_task(ask(f"{service.url}/block?file={free}"))
    word, pid = (await asyncio.to_thread(read_line, service.process)).split()
    assert word == "blocking"
    async with load(service.url, keep_alive=False) as client:
        await until_async(lambda: client.answered >= 200)
    assert (set(client.answers), client.failures) == (set(map(str, slots(mark).values())) - {pid}, [])
    metrics = await scrape(service)
    assert metrics["answered_total"] == client.answered
    (slot,) = [slot for slot, worker in slots(mark).items() if worker == int(pid)]
    assert metrics[f'process_open_fds{{worker="{slot}"}}'] > 0
    assert not blocked.done()
    free.touch()
    assert await blocked == "done"


async def test_a_worker_that_does_not_answer_is_replaced(serve, mark, tmp_path):
    """After --worker-timeout it is killed, and its successor serves."""
    service = serve(
        "many:create_app", "--workers", "2", "--port", "0", "--metrics-port", "0", "--worker-timeout", "2",
        **{MARK: mark},
    )  # fmt: skip
    blocked = asyncio.create_task(ask(f"{service.url}/block?file={tmp_path}/never"))
    _, pid = (await asyncio.to_thread(read_line, service.process)).split()
    with pytest.raises(Exception, match="disconnected"):
        await blocked
    await until_async(lambda: are_without(mark, int(pid)))
    assert await restarts(service, "timeout") >= 1  # the other one may be too busy to answer in time
    assert f"(pid {pid}) has not answered for 2 s" in service.stop()[2]


@pytest.mark.parametrize("name", ["block", "compute", "sleep"])
async def test_the_log_shows_where_a_worker_is_blocked(serve, tmp_path, name):
    """In Python, and in C calls that keep the GIL: its request, and the stacks of its threads in the same record.

    A signal ends the last of them, so that the request may get its answer before the worker is killed.
    """
    service = serve("many:create_app", "--workers", "1", "--port", "0", "--worker-timeout", "2")
    (answer,) = await asyncio.gather(ask(f"{service.url}/{name}?file={tmp_path}/never"), return_exceptions=True)
    assert name == "sleep" or "disconnected" in str(answer)
    assert re.search(
        rf" has not answered for 2 s\. In progress: 1 request \(POST /{name}\)\. Its stacks:\n"
        r"    Current thread 0x\w+ (\[\w+\] )?\(most recent call first\):\n"
        rf'      File ".*many\.py", line \d+ in {name}\n'
        r"(    .*\n|\n)+[^ ].* has ended, by signal 9 \(SIGKILL\)\.\n",
        service.stop()[2],
    )


async def test_a_stopped_worker_is_killed_without_its_stacks(serve, mark):
    """It cannot write them, and the log says so."""
    service = serve(
        "many:create_app", "--workers", "1", "--port", "0", "--metrics-port", "0", "--worker-timeout", "2",
        **{MARK: mark},
    )  # fmt: skip
    (pid,) = slots(mark).values()
    os.kill(pid, signal.SIGSTOP)
    await until_async(lambda: not is_alive(pid))
    await until_up(service, 1)
    log = service.stop()[2]
    assert f"(pid {pid}) has not answered for 2 s. It has not written its stacks; a stopped process cannot.\n" in log


async def test_a_worker_that_exits_is_started_again(serve, mark):
    """Whatever its exit code is."""
    service = serve("many:create_app", "--workers", "2", "--port", "0", "--metrics-port", "0", **{MARK: mark})
    before = slots(mark)
    with pytest.raises(Exception, match="disconnected"):
        await ask(service.url + "/exit")
    await until_async(lambda: len(now := slots(mark)) == 2 and now != before)
    assert await restarts(service, "exit") == 1
    assert "has ended, by exit code 7." in service.stop()[2]


async def test_requests_that_kill_are_no_outage(serve, mark):
    """Workers that have served are started again at once, however often they are killed; then all is as before."""
    service = serve(
        "many:create_app", "--workers", "2", "--port", "0", "--metrics-port", "0", is_measured=False, **{MARK: mark}
    )

    async def kill_again_and_again(client):
        while not client.closed:
            with suppress(aiohttp.ClientError, OSError):
                await client.post(service.url + "/exit")

    async with aiohttp.ClientSession() as client, asyncio.timeout(DEADLINE):
        killers = [asyncio.create_task(kill_again_and_again(client)) for _ in range(2)]
        while await restarts(service, "exit") < 14:
            await asyncio.sleep(0.05)
        for killer in killers:
            killer.cancel()
        await asyncio.gather(*killers, return_exceptions=True)
        await until_up(service, 2)
        assert await ask(service.url)


async def test_a_worker_is_replaced_after_its_requests(serve, mark):
    """--max-requests: without a refused connection or a lost answer, and all are counted."""
    service = serve(
        "many:create_app", "--workers", "2", "--port", "0", "--metrics-port", "0", "--max-requests", "100",
        **{MARK: mark},
    )  # fmt: skip
    first = set(slots(mark).values())
    async with load(service.url) as client:
        await until_async(lambda: first.isdisjoint(slots(mark).values()))
    assert client.failures == []
    assert (await scrape(service))["answered_total"] == client.answered
    assert await restarts(service, "max-requests") >= 2
    assert service.stop()[0] == 0


async def test_a_worker_that_cannot_start_again_is_tried_again(serve, mark, tmp_path):
    """While its siblings serve, with pauses that become longer; when the cause is gone, it serves."""
    app = tmp_path / "patience.py"
    app.write_text("from many import create_app\n")
    service = serve(
        f"{app}:create_app", "--workers", "2", "--port", "0", "--metrics-port", "0",
        **{MARK: mark, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "."},
    )  # fmt: skip
    app.write_text("raise RuntimeError('no database')\n")
    victim = slots(mark)[1]
    os.kill(victim, signal.SIGKILL)
    async with load(service.url, keep_alive=False) as client:
        while await restarts(service, "exit") < 1:
            await asyncio.sleep(0.05)
        await until_up(service, 1)
        app.write_text("from many import create_app\n")
        await until_up(service, 2)
    assert client.failures == []
    code, _, error = service.stop()
    assert code == 0
    assert 'Worker 1 has failed: "' in error
    assert "failed while it was imported: RuntimeError: no database" in error


async def test_the_supervisors_death_takes_the_workers_along(serve, mark, tmp_path):
    """They answer the requests that they have begun, and end."""
    service = serve("many:create_app", "--workers", "2", "--port", "0", **{MARK: mark})
    waiting = asyncio.create_task(ask(f"{service.url}/wait?file={tmp_path}/go"))
    _, pid = (await asyncio.to_thread(read_line, service.process)).split()
    (other,) = set(slots(mark).values()) - {int(pid)}
    service.process.kill()
    await until_async(lambda: not is_alive(other) or other not in slots(mark).values())
    assert int(pid) in slots(mark).values()
    (tmp_path / "go").touch()
    assert await waiting == "done"
    await until_async(lambda: not slots(mark))


async def test_what_a_killed_worker_has_forked_ends(serve, mark, tmp_path):
    """It has inherited the address, which would stay in use after the stop. An end in order leaves it to the application."""
    file = tmp_path / "forking.py"
    file.write_text(
        "import os, time\nfrom aiohttp import web\n\nasync def fork(app):\n    if os.fork() == 0:\n        os.closerange(0, 3)\n        time.sleep(1000)\n\n"
        "def create():\n    app = web.Application()\n    app.on_startup.append(fork)\n    return app\n"
    )
    service = serve(
        f"{file}:create", "--workers", "1", "--port", "0", *PATIENT, is_measured=False, **{MARK: mark},
    )  # fmt: skip

    def forked() -> set[int]:
        every = processes(mark)
        return {pid for parent in every for pid in children(parent) if pid in every and parent != service.process.pid}

    (first,) = forked()
    (worker,) = processes(mark).keys() & set(children(service.process.pid))
    os.kill(worker, signal.SIGKILL)
    await until_async(lambda: first not in processes(mark) and len(forked()) == 1)
    (second,) = forked()
    try:
        await settled(service)  # it serves
        assert service.stop()[0] == 0
        assert second in processes(mark)
    finally:
        os.kill(second, signal.SIGKILL)
