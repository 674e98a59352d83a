from __future__ import annotations

import errno
import os

import pytest
from conftest import DEADLINE, in_worker, read_files, read_line, start_worker

from hr_prometheus.multiprocess.compaction import compact


@pytest.fixture
def directory(tmp_path):
    """A directory of slots."""
    return str(tmp_path)


FORKING = """
import os
from prometheus_client import Counter, Gauge, Histogram, Summary
made, seen, took = Counter("made", "Help", ["by"]), Summary("seen", "Help"), Histogram("took", "Help", buckets=(1, 2))
gauges = [Gauge(mode, "Help", multiprocess_mode=mode) for mode in ("all", "liveall", "min", "max", "sum", "mostrecent")]

def work(number):
    made.labels("all").inc(number)
    made.labels(str(number)).inc()
    seen.observe(number)
    took.observe(number)
    for gauge in gauges:
        gauge.set(number)

work(2)
if not os.fork():
    work(1)
    os._exit(0)
os.wait()
"""


def test_ended_forks_share_their_files(directory):
    """Their counts are kept, and neither files nor bytes grow with each of them."""
    sizes = set()
    for run in range(1, 4):
        in_worker(directory, 0, FORKING)
        before = read_files(directory)
        compact(directory)
        assert not [name for name in os.listdir(directory) if "-" in name]
        after = read_files(directory)
        assert before.items() - after.items() == {
            (name, value) for name, value in before.items() if "('worker', '0-" in name
        }
        assert after["made_total[('by', 'all')]"] == 3 * run
        assert after["seen_sum[]"] == 3 * run
        assert after["took_bucket[('le', '1.0')]"] == run
        assert after["took_count[]"] == 2 * run
        assert (after["all[('worker', '0')]"], after["min[]"], after["max[]"]) == (2, 1, 2)
        assert after["mostrecent[]"] == 1
        sizes.add(sum(os.path.getsize(os.path.join(directory, name)) for name in os.listdir(directory)))
    assert len(sizes) == 1


def test_an_ended_program_shares_them(directory):
    """One that the application started, which names its files by its pid."""
    code = """
    import subprocess, sys
    subprocess.run([sys.executable, "-c", "import prometheus_client as p; p.Counter('made', 'Help').inc(2)"], check=True)
    """
    in_worker(directory, 1, code)
    compact(directory)
    assert os.listdir(directory) == ["counter_ended.db"]
    assert read_files(directory) == {"made_total[]": 2}


def test_a_living_fork_keeps_its_files(directory):
    """It may outlive its worker, and goes on counting."""
    code = """
    import os
    from prometheus_client import Counter
    made = Counter("made", "Help")
    made.inc()
    print("made", flush=True)
    input()
    """
    path = os.path.join(directory, f"counter_w0-{os.getpid()}.db")
    process = start_worker(directory, 0, code)
    read_line(process)
    os.rename(os.path.join(directory, "counter_w0.db"), path)
    compact(directory)
    assert os.path.exists(path)
    process.communicate("\n", timeout=DEADLINE)


def test_without_room_the_files_stay(directory, monkeypatch, caplog):
    """No count is lost. The supervisor is not killed either, as it would be if it wrote to mapped memory without room."""
    in_worker(directory, 0, FORKING)
    before = read_files(directory)

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    compact(directory)
    assert not [name for name in os.listdir(directory) if name.endswith(".new")]
    kept = {name: value for name, value in before.items() if "('worker', '0-" not in name}
    assert kept.items() <= read_files(directory).items() <= before.items()
    (record,) = caplog.records
    assert record.getMessage().endswith("No space left on device")


def test_the_files_of_a_process_that_may_live_stay(directory, monkeypatch):
    """That of another user may not be signalled; and a number may be too large for a pid."""

    def refuse(*_):
        raise PermissionError

    for identifier in ("w0-4711", "9" * 30):
        open(os.path.join(directory, f"counter_{identifier}.db"), "w").close()
    monkeypatch.setattr(os, "kill", refuse)
    compact(directory)
    monkeypatch.undo()
    os.remove(os.path.join(directory, "counter_w0-4711.db"))
    compact(directory)
    assert os.listdir(directory) == [f"counter_{'9' * 30}.db"]
