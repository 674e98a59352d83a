from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import clean_environment, in_worker, metrics_kept_in_files
from prometheus_client import Counter

from hr_prometheus.multiprocess.reader import ValueCollector
from hr_prometheus.multiprocess.value_class import (
    enter_multiprocess_mode,
    leave_multiprocess_mode,
    process_identifier,
)


def total(directory, name="made_total"):
    """Return the sum that the files of a directory hold of one counter."""
    collector = ValueCollector(str(directory))
    (value,) = [sample.value for family in collector.collect() for sample in family.samples if sample.name == name]
    collector.close()
    return value


@pytest.fixture
def restored(monkeypatch):
    """Undo at the end what a test does to prometheus_client's value class and the environment."""
    for variable in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        monkeypatch.setenv(variable, "")  # so that it is restored whatever happens
        monkeypatch.delenv(variable)
    with metrics_kept_in_files():
        yield monkeypatch


def test_metrics_are_kept_in_the_files_of_the_slot(tmp_path):
    """The next worker in the slot goes on with the same files and counts."""
    code = "from prometheus_client import Counter; Counter('made', 'Help').inc(2)"
    for run in range(1, 4):
        in_worker(str(tmp_path), 7, code)
        assert [path.name for path in tmp_path.iterdir()] == ["counter_w7.db"]
        assert total(tmp_path) == 2 * run


@pytest.mark.parametrize("variable", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_the_environment_may_name_another_directory_before(variable, tmp_path):
    """prometheus_client reads the environment when it is imported, and at each metric; the directory of the slot wins."""
    other = tmp_path / "other"
    other.mkdir()
    slots = tmp_path / "slots"
    slots.mkdir()
    in_worker(str(slots), 0, "import prometheus_client as p; p.Counter('made', 'Help').inc()", **{variable: str(other)})
    assert not list(other.iterdir())
    assert total(slots) == 1


def test_a_fork_has_files_of_its_own(tmp_path):
    """A process that the application forks neither breaks nor repeats the numbers of its worker."""
    code = """
    import os
    from prometheus_client import Counter
    made = Counter("made", "Help")
    made.inc(5)
    if not os.fork():
        made.inc(2)
        os._exit(0)
    os.wait()
    made.inc(1)
    """
    in_worker(str(tmp_path), 0, code)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    assert names[0].startswith("counter_w0-")
    assert names[1] == "counter_w0.db"
    assert total(tmp_path) == 8


def test_a_program_that_the_application_starts_counts_too(tmp_path):
    """It inherits the directory, and names its files by its pid: which is never taken for a slot."""
    code = """
    import subprocess, sys
    from prometheus_client import Counter
    Counter("made", "Help").inc()
    subprocess.run([sys.executable, "-c", "import prometheus_client as p; p.Counter('made', 'Help').inc(2)"], check=True)
    """
    in_worker(str(tmp_path), 0, code)
    assert len(list(tmp_path.glob("counter_[0-9]*.db"))) == 1
    assert total(tmp_path) == 3


def test_an_identifier_has_no_underscore():
    """prometheus_client takes the names of files apart at underscores."""
    assert process_identifier(0)() == "w0"
    assert process_identifier(12)() == "w12"


def test_metrics_that_were_made_before_stay_in_memory(tmp_path, restored):
    """Only those made after the mode was entered are in the files of the slot."""
    before = Counter("before", "Help", registry=None)
    enter_multiprocess_mode(str(tmp_path), 3)
    after = Counter("made", "Help", registry=None)
    before.inc()
    after.inc()
    assert total(tmp_path) == 1


def test_the_supervisor_leaves_no_files(tmp_path):
    """Its metrics stay in memory, although prometheus_client is imported before the variable is removed."""
    code = """
    from hr_prometheus.multiprocess.value_class import leave_multiprocess_mode
    import os
    import prometheus_client
    print(leave_multiprocess_mode())
    prometheus_client.Counter("made", "Help").inc()
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
    """
    environment = clean_environment(PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    lines = "\n".join(line.strip() for line in code.splitlines())
    out = subprocess.run([sys.executable, "-c", lines], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout == f"{tmp_path}\n"
    assert not list(tmp_path.iterdir())


def test_the_base_is_what_the_environment_names(restored):
    """The name in capitals wins; an empty value counts as unset."""
    assert leave_multiprocess_mode() is None
    restored.setenv("prometheus_multiproc_dir", "/old")
    assert leave_multiprocess_mode() == "/old"
    restored.setenv("prometheus_multiproc_dir", "/old")
    restored.setenv("PROMETHEUS_MULTIPROC_DIR", "/new")
    assert leave_multiprocess_mode() == "/new"
    restored.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    assert leave_multiprocess_mode() is None
    assert not {"PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"} & os.environ.keys()
