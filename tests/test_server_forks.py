from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from conftest import APPS, DEADLINE, clean_environment, read_line

from hr_prometheus.server.forks import ServingProcesses


def test_the_second_process_warns(caplog, monkeypatch):
    """Not the first, which may serve more than once, and not the third."""
    processes = ServingProcesses("script.py")
    assert not processes.others_serve
    for pid, messages in ((1, 0), (1, 0), (2, 1), (3, 1)):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        processes.note_serving()
        assert len(caplog.records) == messages
        assert processes.others_serve == (pid != 1)
    assert '"script.py" serves with several processes that it has started itself.' in caplog.text


@pytest.mark.parametrize("how", ["run_app", "runner"])
def test_a_script_that_forks(how):
    """Both processes serve, and one line says that each counts for itself."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hr_prometheus", "run", "script_with_forks.py", how], cwd=APPS, env=clean_environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert [" on http://127.0.0.1:" in read_line(process) for _ in range(2)] == [True] * 2
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=DEADLINE)
    assert errors.count("Each counts for itself") == 1
