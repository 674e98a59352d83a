from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import APPS, DEADLINE, clean_environment, read_line

from hr_prometheus.server.forks import ServingProcesses


def test_the_second_process_warns(caplog, monkeypatch):
    """Not the first, which may serve more than once, and not the third."""
    processes = ServingProcesses("script.py")
    assert not processes.others_serve
    for pid, messages in ((1, 0), (1, 0), (2, 1), (2, 1), (3, 1)):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        assert processes.note_serving() == (pid == 1)
        assert len(caplog.records) == messages
        assert processes.others_serve == (pid != 1)
    assert '"script.py" serves with several processes that it has started itself.' in caplog.text


def test_a_script_that_closes_all_descriptors():
    """It serves as ever, and knows of no other process."""
    code = (
        "import os\nfrom hr_prometheus.server.forks import ServingProcesses\nprocesses = ServingProcesses('script.py')\n"
        "os.closerange(3, 1000)\nassert processes.note_serving() and processes.any_serves and not processes.others_serve"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("how", ["run_app", "runner"])
@pytest.mark.parametrize("has_metrics_port", [False, True])
def test_a_script_that_forks(how, has_metrics_port):
    """Both processes serve, one line says that each counts for itself, and their end is that of the script.

    The metrics' own port is that of the first; the second announces a free one.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    options = ("--metrics-port", str(port)) * has_metrics_port
    process = subprocess.Popen(
        [sys.executable, "-m", "hr_prometheus", "run", *options, "script_with_forks.py", how], cwd=APPS, env=clean_environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        lines = [read_line(process) for _ in range(2)]
        assert all(" on http://127.0.0.1:" in line for line in lines)
        metrics = {re.search("metrics on http://127.0.0.1:([0-9]+)/", line)[1] for line in lines}
        assert len(metrics) == 1 + has_metrics_port
        assert (str(port) in metrics) == has_metrics_port
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGTERM)
        _, errors = process.communicate(timeout=DEADLINE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert errors.count("Each counts for itself") == 1
    assert "served nothing" not in errors
    assert process.returncode == 0
