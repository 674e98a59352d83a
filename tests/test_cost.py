"""The cost of a request and of a scrape, counted rather than timed: a lost optimisation fails here on any machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DEADLINE, unmeasured_environment

COUNTED = Path(__file__).parent.parent / "benchmarks" / "counted.py"

#: The output of ``python benchmarks/counted.py`` with Python 3.11. A request has instructions, calls and bytes in use at
#: once, over the bare application's; with exemplars it has no trace, and is looked at. ``kept`` is blocks of memory after a
#: thousand requests, ``scrape`` calls a line.
MEASURED = {
    "empty, plain": [98, 13, 448],
    "run-basic, plain": [720, 36, 1328],
    "run-full, plain": [954, 45, 1328],
    "empty, parametrised": [98, 13, 480],
    "run-basic, parametrised": [731, 37, 1360],
    "run-full, parametrised": [965, 46, 1360],
    "empty, fixed": [98, 13, 449],
    "run-basic, fixed": [734, 37, 1329],
    "run-full, fixed": [968, 46, 1329],
    "empty, folded": [98, 13, 448],
    "run-basic, folded": [797, 42, 1329],
    "run-full, folded": [1031, 51, 1329],
    "empty, listening": [98, 13, 448],
    "run-basic, listening": [720, 36, 1297],
    "run-full, listening": [954, 45, 1297],
    "empty, post": [98, 13, 384],
    "run-basic, post": [720, 36, 1264],
    "run-full, post": [1009, 50, 1264],
    "empty, raised": [124, 17, 248],
    "run-basic, raised": [741, 40, 1056],
    "run-full, raised": [987, 53, 1512],
    "empty, stream": [98, 13, 896],
    "run-basic, stream": [951, 55, 1408],
    "run-full, stream": [1185, 64, 1816],
    "empty, file": [98, 13, 240],
    "run-basic, file": [866, 49, 704],
    "run-full, file": [1213, 65, 704],
    "empty, hidden": [98, 13, 448],
    "run-basic, hidden": [905, 50, 1424],
    "run-full, hidden": [1139, 59, 1424],
    "run-native, plain": [954, 45, 1328],
    "run-traceparent, plain": [1029, 50, 1328],
    "run-otel, plain": [1042, 52, 1448],
    "run-full, plain, 1000 routes": [954, 45, 1328],
    "run-basic, kept": 1,
    "run-basic, scrape": 4.2,
    "run-full, kept": 1,
    "run-full, scrape": 2.6,
}
#: The tolerance of instructions, which are exact with one Python; later ones take a few more for the same.
MORE = {11: 1.01, 12: 1.03}.get(sys.version_info.minor, 1.08)
MORE_CALLS, MORE_BYTES = 1, 100 if sys.version_info < (3, 13) else 300
#: A loop or a formatting for each line is at least one call a line.
MORE_CALLS_A_LINE = 0.5
#: Below this part of its number the table is out of date, and would hide the next loss.
LESS = 0.8
#: Blocks of memory that may be in use after a thousand requests and were not before; some are the counting's own.
KEPT = 10


@pytest.fixture(scope="module")
def counts() -> dict:
    """Count in a process of its own, without coverage and without other tests."""
    done = subprocess.run(
        [sys.executable, COUNTED],
        env=unmeasured_environment(),
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", [name for name, costs in MEASURED.items() if isinstance(costs, list)])
def test_a_request_costs_no_more_than_it_did(counts, name):
    """No change adds instructions, calls or memory to a request of any kind unnoticed."""
    (instructions, calls, size), measured = counts[name], MEASURED[name]
    assert instructions <= measured[0] * MORE
    assert calls <= measured[1] + MORE_CALLS
    assert size <= measured[2] + MORE_BYTES
    assert calls >= measured[1] * LESS or sys.version_info >= (3, 13), "write MEASURED again"


@pytest.mark.parametrize("name", [name for name in MEASURED if name.endswith("scrape")])
def test_a_line_of_a_scrape_costs_no_more_than_it_did(counts, name):
    """No change adds a loop or a formatting to each line unnoticed."""
    assert MEASURED[name] * LESS <= counts[name] <= MEASURED[name] + MORE_CALLS_A_LINE


def test_the_number_of_routes_does_not_matter(counts):
    """A request takes the same with a few routes and with a thousand more."""
    few, many = counts["run-full, plain"], counts["run-full, plain, 1000 routes"]
    assert many[0] <= few[0] * 1.02
    assert many[1] <= few[1]


@pytest.mark.parametrize("detail", ["basic", "full"])
def test_requests_leave_nothing_behind(counts, detail):
    """After a thousand requests no more memory is in use than before."""
    assert counts[f"run-{detail}, kept"] <= KEPT
