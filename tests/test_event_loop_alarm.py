from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import DEADLINE, clean_environment, wait_for

from hr_prometheus.event_loop import alarm
from hr_prometheus.event_loop.alarm import Alarm

WAIT = """
from hr_prometheus.event_loop.alarm import Alarm
alarm = Alarm()
print("waits", flush=True)
print(alarm.wait(1.0))
"""


def missing():
    raise AttributeError("timerfd_create")


def refused(_clock):
    raise OSError("no such call")


@pytest.mark.parametrize("functions", [alarm._functions, missing, lambda: (refused, None)])
def test_it_waits_as_long_as_it_is_asked_to(monkeypatch, functions):
    """With Python's own functions or those of libc, and on a system that has none."""
    monkeypatch.setattr(alarm, "_functions", functions)
    clock = Alarm()
    for seconds in (0.03, 0.0, -1.0):
        began = time.perf_counter()
        assert clock.wait(seconds) >= 0
        assert time.perf_counter() - began >= seconds
    clock.close()
    clock.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such timer")
def test_it_notices_that_the_process_was_stopped():
    """Whoever wakes late can tell that from a wait for the interpreter lock."""
    process = subprocess.Popen([sys.executable, "-c", WAIT], env=clean_environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "waits\n"
    wait_for(Path(f"/proc/{process.pid}/stat").read_text, lambda stat: ") S " in stat)
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    time.sleep(1.5)
    process.send_signal(signal.SIGCONT)
    assert float(process.communicate(timeout=DEADLINE)[0]) >= 0.3
