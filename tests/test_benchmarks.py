"""The benchmarks run and print their tables. How large the numbers are is not tested here."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import DEADLINE, hr_prometheus

if TYPE_CHECKING:
    import subprocess

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
KINDS = ["plain", "parametrised", "fixed", "folded", "listening", "post", "raised", "stream", "file"]
MULTIPLES = {"overhead": KINDS, "scrape": ["faster"]}
#: Runs the benchmarks with so little to measure that a number is only a number.
SMALL = f"""
import runpy, sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import measures
measures._REQUESTS, measures._AT_ONCE, measures._LINES, measures._MEMORY_PATHS = 5, 1, 500, 50
measures._LOADS = [(connections, 0.15, 1) for connections, *_ in measures._LOADS]
runpy.run_module("run", run_name="__main__")
sys.exit()
"""


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the benchmarks to their end, in a fork."""
    return hr_prometheus(*map(str, arguments), first=SMALL, is_measured=False, timeout=6 * DEADLINE)


def row(part: str, variant: str, case: str, value: float | None, unit: str = "×") -> dict[str, object]:
    """Return a number of a run, as its file has it."""
    return {"part": part, "variant": variant, "case": case, "value": value, "unit": unit}


def numbers(results: Path) -> dict[tuple[str, str, str], float]:
    """Return the numbers of a run by part, variant and case."""
    return {(row["part"], row["variant"], row["case"]): row["value"] for row in json.loads(results.read_text())["rows"]}


def test_every_part_has_its_numbers(tmp_path):
    """One round of the parts that need no network has a number for each variant and kind, and the table shows them."""
    results = tmp_path / "results.json"
    only = ("--only", "overhead,calls,scrape,start", "--variants", "empty,run-full,by-hand,client")
    done = bench("--rounds", 1, "--json", results, *only)
    assert done.returncode == 0, done.stderr
    values = numbers(results)
    for part, cases in MULTIPLES.items():
        for case in cases:
            for variant in ("run-full", "by-hand"):
                assert (part, variant, case) in values
    assert values["overhead", "bare", "plain"] > 0
    assert values["calls", "bare", "call"] > 0
    assert ("calls", "client", "over") in values
    assert values["start", "run-full", "compared"] > 0
    for heading in ("with signal", "GET /metrics", "aiohttp.web"):
        assert heading in done.stdout
    assert bench("--read", results).stdout == done.stdout


def test_what_takes_long_has_its_numbers(tmp_path):
    """Responses over sockets, and the memory of many labels."""
    results = tmp_path / "results.json"
    done = bench("--rounds", 1, "--json", results, "--only", "throughput,memory", "--variants", "run-full")
    assert done.returncode == 0, done.stderr
    values = numbers(results)
    assert values["throughput", "run-full", "1000"] > 0
    assert values["memory", "run-full", "series"] > 0
    for heading in ("64 connections", "bytes"):
        assert heading in done.stdout


def test_the_dearest_kind_is_the_last_column(tmp_path):
    """Whoever reads a table sees at its end what hr-prometheus costs at most."""
    results = tmp_path / "results.json"
    costs = {kind: float(number) for number, kind in enumerate(KINDS, 1)} | {"plain": 99.0}
    rows = [row("overhead", "run-full", kind, cost) for kind, cost in costs.items()]
    results.write_text(json.dumps({"conditions": "", "rows": rows}))
    heading, _line = bench("--read", results).stdout.splitlines()
    assert heading.split()[-2:] == ["file", "plain"]


def test_a_peer_that_is_missing_has_its_line(tmp_path):
    """Without a network there are no peers, and the table says so."""
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"conditions": "", "rows": [row("growth", "exporter", "10", None)]}))
    (line,) = [line for line in bench("--read", results).stdout.splitlines() if "exporter" in line]
    assert line.split()[-4:] == ["not", "installed", "-", "-"]


def test_one_noisy_case_does_not_change_the_unit(monkeypatch):
    """The empty middleware's cost is pooled over all cases, so that one wrong number makes no other one wrong."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    measures = importlib.import_module("measures")
    times = {("", kind): {"bare": [1.0], "empty": [2.0], "full": [4.0]} for kind in KINDS}
    times["", "plain"]["empty"] = [1.001]
    rows = measures.multiples(times, "overhead")
    assert {row.value for row in rows if row.variant == "full"} == {3.0}


@pytest.mark.parametrize("arguments", [["--only", "nothing"], ["--variants", "basic,other"], ["--rounds", "0"]])
def test_a_wrong_option_is_an_error(arguments):
    """Nothing is measured for an unknown word."""
    done = bench(*arguments)
    assert done.returncode == 2
    assert f'{arguments[0]} "{arguments[1].split(",")[-1]}": expected ' in done.stderr
