"""What a request and a scrape cost, counted rather than timed: a lost optimisation fails here, whatever the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DEADLINE, clean_environment

COUNTED = Path(__file__).parent.parent / "benchmarks" / "counted.py"

#: As ``python benchmarks/counted.py`` prints it with Python 3.11. Of a request, over the bare
#: application's: instructions, calls and bytes at once. Of a thousand requests: blocks of memory that are kept. Of a
#: scrape in which all has changed: calls a line.
MEASURED = {
    "empty, plain": [98, 13, 448],
    "basic-middleware, plain": [660, 50, 1452],
    "full-middleware, plain": [832, 57, 1452],
    "basic, plain": [660, 50, 1453],
    "full, plain": [832, 57, 1453],
    "empty, parametrised": [98, 13, 448],
    "basic-middleware, parametrised": [674, 51, 1452],
    "full-middleware, parametrised": [846, 58, 1452],
    "basic, parametrised": [674, 51, 1452],
    "full, parametrised": [846, 58, 1453],
    "empty, fixed": [98, 13, 448],
    "basic-middleware, fixed": [677, 51, 1452],
    "full-middleware, fixed": [849, 58, 1452],
    "basic, fixed": [677, 51, 1452],
    "full, fixed": [849, 58, 1452],
    "empty, folded": [98, 13, 449],
    "basic-middleware, folded": [804, 63, 1453],
    "full-middleware, folded": [976, 70, 1453],
    "basic, folded": [804, 63, 1453],
    "full, folded": [976, 70, 1453],
    "empty, hidden": [98, 13, 448],
    "basic-middleware, hidden": [835, 64, 1452],
    "full-middleware, hidden": [1007, 71, 1452],
    "basic, hidden": [835, 64, 1452],
    "full, hidden": [1007, 71, 1452],
    "full, plain, 1000 routes": [832, 57, 1452],
    "basic, kept": 1,
    "basic, scrape": 3.6,
    "full, kept": 1,
    "full, scrape": 2.0,
}
#: How much more may be counted before somebody has to look; a lock is seen, and so is a call or a string. Later Pythons
#: have a few more instructions for the same.
MORE = {11: 1.01, 12: 1.03}.get(sys.version_info.minor, 1.08)
MORE_CALLS, MORE_BYTES = 1, 100
#: Far less than this, and the table is to be written again, or the next loss would hide in it.
LESS = 0.8
#: Blocks of memory in use after a thousand requests that were not before; some are the counting's own.
KEPT = 10


@pytest.fixture(scope="module")
def found() -> dict:
    """Count in a process of its own, where neither coverage nor another test takes part."""
    environment = {name: value for name, value in clean_environment().items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, COUNTED], env=environment, capture_output=True, text=True, timeout=3 * DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", [name for name, costs in MEASURED.items() if isinstance(costs, list)])
def test_a_request_costs_no_more_than_it_did(found, name):
    """Neither instructions nor calls nor memory are added to a request without somebody's leave."""
    (instructions, calls, size), (known_instructions, known_calls, known_size) = found[name], MEASURED[name]
    assert instructions <= known_instructions * MORE
    assert calls <= known_calls + MORE_CALLS
    assert size <= known_size + MORE_BYTES
    assert calls >= known_calls * LESS, "write MEASURED again"


@pytest.mark.parametrize("name", [name for name in MEASURED if name.endswith("scrape")])
def test_a_line_of_a_scrape_costs_no_more_than_it_did(found, name):
    """Neither a loop nor a formatting is added for each line."""
    rounding = 0.1
    assert MEASURED[name] * LESS <= found[name] <= MEASURED[name] * MORE + rounding


def test_the_number_of_routes_does_not_matter(found):
    """A request takes the same with two routes and with a thousand more."""
    few, many = found["full, plain"], found["full, plain, 1000 routes"]
    assert many[0] <= few[0] * 1.02
    assert many[1] <= few[1]


@pytest.mark.parametrize("detail", ["basic", "full"])
def test_requests_leave_nothing_behind(found, detail):
    """After a thousand requests no more memory is in use than before."""
    assert found[f"{detail}, kept"] <= KEPT
