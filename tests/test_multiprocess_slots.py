from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import pytest
from conftest import DEADLINE, clean_environment, in_worker, read_files, read_line, samples, start_worker
from prometheus_client import CollectorRegistry, generate_latest

from hr_prometheus.errors import ServingError
from hr_prometheus.multiprocess import slots as slots_module
from hr_prometheus.multiprocess.aggregate_cells import CellCollector
from hr_prometheus.multiprocess.slots import Slots
from hr_prometheus.request.records import Records
from hr_prometheus.request.websocket import WebSocketRecord
from hr_prometheus.store.files import FileAllocator
from hr_prometheus.store.store import allocators


@pytest.fixture
def slots(tmp_path):
    """A directory of a supervisor, as it is at the start."""
    slots = Slots(str(tmp_path / "base"))
    yield slots
    slots.remove()


def named(slots):
    """Return the names of the files of metrics."""
    return sorted(name for name in os.listdir(slots.path) if name.endswith(".db"))


@pytest.fixture
def supervisor():
    """Start another supervisor, which makes a directory in a base and lives until it is killed."""
    started = []

    def start(base):
        code = f"import sys; from hr_prometheus.multiprocess.slots import Slots; print(Slots({base!r}).path); sys.stdin.read()"
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", code],
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, read_line(process).strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_directory_is_private_and_goes_with_its_supervisor(tmp_path):
    """Other programs' files in the base are neither read nor removed."""
    (tmp_path / "counter_1.db").write_bytes(b"another program's")
    slots = Slots(str(tmp_path))
    assert os.path.dirname(slots.path) == str(tmp_path)
    assert f"-{os.getpid()}-" in slots.path
    assert stat.S_IMODE(os.stat(slots.path).st_mode) == 0o700
    assert read_files(slots.path) == {}
    slots.remove()
    slots.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["counter_1.db"]


def test_without_a_base_the_first_place_with_room_is_taken(tmp_path, monkeypatch):
    """Shared memory, or else the directory of temporary files; a place that is missing is passed over."""
    monkeypatch.setattr(slots_module, "PLACES", (str(tmp_path / "missing"), str(tmp_path)))
    slots = Slots()
    assert os.path.dirname(slots.path) == str(tmp_path)
    slots.remove()


def full(free):
    """Return a ``statvfs`` of a file system with *free* bytes."""
    return lambda _: SimpleNamespace(f_bavail=free // 4096, f_frsize=4096)


def test_a_full_file_system_is_refused_in_words(tmp_path, monkeypatch):
    """A process that writes to mapped memory for which the file system has no room is killed."""
    monkeypatch.setattr(os, "statvfs", full(300 * 1024))
    with pytest.raises(ServingError) as caught:
        Slots(str(tmp_path))
    assert str(caught.value) == (
        f'the numbers of the workers cannot be kept ("{tmp_path}": only 300 KiB are free). Name a directory that can '
        "be written, with 16 MiB free, in the environment variable PROMETHEUS_MULTIPROC_DIR."
    )
    assert not list(tmp_path.iterdir())


def test_a_full_place_is_passed_over(tmp_path, monkeypatch):
    """Docker gives shared memory of 64 MB; if that is used up, the temporary files have room."""
    places = [tmp_path / "shm", tmp_path / "tmp"]
    for place in places:
        place.mkdir()
    monkeypatch.setattr(slots_module, "PLACES", tuple(map(str, places)))
    statvfs = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: full(0)(path) if path == str(places[0]) else statvfs(path))
    slots = Slots()
    assert os.path.dirname(slots.path) == str(places[1])
    slots.remove()


def test_a_base_that_cannot_be_written_is_refused_in_words(tmp_path):
    """The directory and the reason are named."""
    base = tmp_path / "file" / "base"
    base.parent.touch()
    with pytest.raises(ServingError, match=rf'cannot be kept \("{base}": Not a directory\)'):
        Slots(str(base))


def test_what_a_killed_supervisor_left_is_swept(tmp_path, supervisor):
    """At the next start. The directory of a living supervisor stays."""
    (_, alive), (process, dead) = supervisor(str(tmp_path)), supervisor(str(tmp_path))
    process.kill()
    process.wait()
    assert os.path.exists(dead)
    slots = Slots(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(map(os.path.basename, [alive, slots.path]))
    slots.remove()


def test_a_pid_in_use_does_not_protect_what_is_left_over(tmp_path):
    """Pids are used again, in containers most of all: what counts is the lock."""
    left = tmp_path / f"hr-prometheus-{os.getpid()}-abc"
    left.mkdir()
    (left / "counter_w0.db").touch()
    (tmp_path / "hr-prometheus-1-empty").mkdir()
    slots = Slots(str(tmp_path))
    assert os.listdir(tmp_path) == [os.path.basename(slots.path)]
    slots.remove()


def test_only_directories_of_that_name_are_swept(tmp_path):
    """A link of that name stays, and so does its target; so do a file and a pipe."""
    outside, base = tmp_path / "outside", tmp_path / "base"
    outside.mkdir()
    base.mkdir()
    (base / "hr-prometheus-1-link").symlink_to(outside)
    (base / "hr-prometheus-2-file").touch()
    os.mkfifo(base / "hr-prometheus-3-pipe")
    (base / "another").mkdir()
    slots = Slots(str(base))
    assert len(os.listdir(base)) == 5
    assert os.listdir(outside) == []
    slots.remove()


def test_only_directories_of_ones_own_are_swept(tmp_path, monkeypatch):
    """Shared memory and temporary files are for all users."""
    theirs = tmp_path / "hr-prometheus-3-theirs"
    theirs.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(theirs).st_uid + 1)
    slots = Slots(str(tmp_path))
    assert os.listdir(theirs) == []
    slots.remove()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_directory_that_is_swept_while_it_is_made_is_made_again(moment, tmp_path, monkeypatch):
    """Another supervisor may sweep a new directory before it is locked, and before or after it is opened."""
    mkdtemp, flock, made = tempfile.mkdtemp, fcntl.flock, []

    def make(**options):
        made.append(mkdtemp(**options))
        if len(made) == 1 and moment == "before":
            os.rmdir(made[0])
        return made[-1]

    def lock(*arguments):
        if len(made) == 1 and moment == "after":
            os.rmdir(made[0])
        flock(*arguments)

    monkeypatch.setattr(tempfile, "mkdtemp", make)
    monkeypatch.setattr(fcntl, "flock", lock)
    slots = Slots(str(tmp_path))
    assert [slots.path] == made[1:]
    slots.remove()


def test_a_place_where_nothing_stays_is_refused(tmp_path, monkeypatch):
    """Another process removes each directory that is made there."""
    mkdtemp = tempfile.mkdtemp

    def make(**options):
        path = mkdtemp(**options)
        os.rmdir(path)
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", make)
    with pytest.raises(ServingError, match="another process removes each directory"):
        Slots(str(tmp_path))


def test_a_directory_that_another_is_sweeping_is_made_again(tmp_path, monkeypatch):
    """The other supervisor has the lock until the directory is removed."""
    mkdtemp, locks = tempfile.mkdtemp, []

    def make(**options):
        path = mkdtemp(**options)
        if not locks:
            locks.append(os.open(path, os.O_RDONLY))
            fcntl.flock(locks[0], fcntl.LOCK_EX)
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", make)
    slots = Slots(str(tmp_path))
    assert not os.path.samestat(os.stat(slots.path), os.fstat(locks[0]))
    slots.remove()
    os.close(locks[0])


GAUGES = """
from prometheus_client import Counter, Gauge
Counter("made", "Help").inc(2)
for mode in ("all", "min", "max", "sum", "mostrecent"):
    for name in (mode, "live" + mode):
        Gauge(name, "Help", multiprocess_mode=name).set({number})
"""


def test_the_gauges_of_a_dead_worker_go_and_its_counts_stay(slots):
    """Gauges of modes that include dead workers stay, except "all"; so do those of other slots."""
    for slot in (1, 10):
        in_worker(slots.path, slot, GAUGES.format(number=slot))
    slots.reclaim(1)
    live = {
        "liveall[('worker', '10')]": 10,
        "livemin[]": 10,
        "livemax[]": 10,
        "livesum[]": 10,
        "livemostrecent[]": 10,
    }
    kept = {"all[('worker', '10')]": 10, "min[]": 1, "max[]": 10, "sum[]": 11}
    assert read_files(slots.path) == {"made_total[]": 4, **live, **kept, "mostrecent[]": 10}


@pytest.mark.parametrize("damage", [b"", b"\1\2\3", b"\xff" * 64, b"\x40\0\0\0\0\0\0\0" + b"\xff" * 56])
def test_a_file_that_cannot_be_read_does_not_outlive_its_worker(damage, slots):
    """It would make each later scrape of prometheus_client's, or the next worker, fail."""
    path = os.path.join(slots.path, "counter_w0.db")
    with open(path, "wb") as file:
        file.write(damage)
    slots.reclaim(0)
    assert named(slots) == []
    in_worker(slots.path, 0, "from prometheus_client import Counter; Counter('made', 'Help').inc()")
    assert read_files(slots.path) == {"made_total[]": 1}


def test_kills_lose_no_count_and_leave_no_file(slots):
    """A worker that is killed and followed by another, again and again, has one set of files and all its counts."""
    code = """
    from prometheus_client import Counter, Gauge
    made, busy = Counter("made", "Help"), Gauge("busy", "Help", multiprocess_mode="livesum")
    busy.inc()
    Gauge("state", "Help").inc()
    made.inc()
    print("made", flush=True)
    input()
    """
    for run in range(1, 4):
        process = start_worker(slots.path, 0, code)
        read_line(process)
        assert read_files(slots.path) == {"made_total[]": run, "busy[]": 1, "state[('worker', '0')]": 1}
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=DEADLINE)
        slots.reclaim(0)
        assert named(slots) == ["counter_w0.db"]
        assert read_files(slots.path) == {"made_total[]": run}


def test_files_of_ended_forks_do_not_wait_for_a_scrape(slots):
    """Restarts leave no more files, even if nothing scrapes."""
    code = """
    import os
    from prometheus_client import Counter
    made = Counter("made", "Help")
    if not os.fork():
        made.inc()
        os._exit(0)
    os.wait()
    """
    in_worker(slots.path, 0, code)
    slots.reclaim(0)
    assert named(slots) == ["counter_ended.db", "counter_w0.db"]
    assert read_files(slots.path) == {"made_total[]": 1}


def test_nothing_of_a_dead_worker_is_in_progress(slots, monkeypatch):
    """Its counts stay; the requests and connections that were open have ended with it."""
    registry = CollectorRegistry()
    monkeypatch.setitem(allocators, registry, FileAllocator(os.path.join(slots.path, "w0")))
    records = Records(registry, detail="full")
    record = records.request(("GET", "/"))
    record.begin()
    record.begin()
    record.finish("200", 1.0)
    WebSocketRecord(record).begin()
    slots.reclaim(0)
    sums = samples(generate_latest(CellCollector(slots.path)).decode())
    assert sums['requests_in_progress{method="GET",path="/"}'] == 0
    assert sums['websocket_connections_in_progress{path="/"}'] == 0
    assert sums['request_count_total{method="GET",path="/",status="200"}'] == 1


def test_a_directory_that_is_gone_is_made_again(slots, caplog):
    """It is locked as before, so that no other supervisor takes it for a left-over, and an error says so once."""
    os.rmdir(slots.path)
    slots.reclaim(0)
    slots.restore()
    assert slots.restored == 1
    assert stat.S_IMODE(os.stat(slots.path).st_mode) == 0o700
    (message,) = [each.getMessage() for each in caplog.records]
    assert message.startswith(f"The directory of the workers' numbers, {slots.path}, was removed")
    other = Slots(os.path.dirname(slots.path))
    assert os.path.isdir(slots.path)
    other.remove()


def test_a_directory_that_cannot_be_made_again_is_named(slots, caplog):
    """The next worker would fail with its first metric. Nothing says that it is made again."""
    os.rmdir(slots.path)
    with open(slots.path, "w"), pytest.raises(ServingError, match=f'"{slots.path}": File exists'):
        slots.restore()
    os.unlink(slots.path)
    assert not caplog.records


def test_a_worker_is_not_started_where_no_room_is_left(slots, monkeypatch):
    """It would be killed when it counts."""
    monkeypatch.setattr(os, "statvfs", full(4096))
    with pytest.raises(ServingError, match="only 4 KiB are free"):
        slots.reclaim(0)
