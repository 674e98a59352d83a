"""The benchmarks run, and say what they have found; how much that is, is not asked here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DEADLINE, clean_environment

RUN = Path(__file__).parent.parent / "benchmarks" / "run.py"
MULTIPLES = {"overhead": ("plain", "parametrised", "fixed", "folded"), "scrape": ("faster",), "memory": ("smaller",)}


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the benchmarks to their end."""
    return subprocess.run(
        [sys.executable, RUN, *map(str, arguments)],
        env=clean_environment(), capture_output=True, text=True, timeout=6 * DEADLINE, check=False,
    )  # fmt: skip


def test_every_part_has_its_numbers(tmp_path):
    """One round of the parts that need no network: each has a number for each variant, and the table shows them."""
    results = tmp_path / "results.json"
    only = ("--only", "overhead,throughput,scrape,memory,start", "--variants", "empty,full,by-hand")
    done = bench("--rounds", 1, "--json", results, *only)
    assert done.returncode == 0, done.stderr
    rows = json.loads(results.read_text())["rows"]
    found = {(row["part"], row["variant"], row["case"]): row["value"] for row in rows}
    for part, cases in MULTIPLES.items():
        for case in cases:
            for variant in ("full", "by-hand"):
                assert (part, variant, case) in found
    assert found["overhead", "bare", "plain"] > 0
    assert found["throughput", "full", "1000"] > 0
    assert found["start", "full", "compared"] > 0
    for heading in ("over budget", "64 connections", "GET /metrics", "bytes", "aiohttp.web"):
        assert heading in done.stdout
    assert bench("--read", results).stdout == done.stdout


def test_a_peer_that_is_missing_has_its_line(tmp_path):
    """Without a network there is nothing to compare with, and the table says so."""
    results = tmp_path / "results.json"
    row = {"part": "overhead", "variant": "exporter", "case": "plain", "value": None, "unit": ""}
    results.write_text(json.dumps({"conditions": "", "rows": [row]}))
    (line,) = [line for line in bench("--read", results).stdout.splitlines() if "exporter" in line]
    assert line.split()[-5:-3] == ["not", "installed"]


@pytest.mark.parametrize("arguments", [["--only", "nothing"], ["--variants", "basic,nobody"], ["--rounds", "0"]])
def test_a_wrong_option_is_told(arguments):
    """Nothing is measured for a word that nobody knows."""
    done = bench(*arguments)
    assert done.returncode == 2
    assert f'{arguments[0]} "{arguments[1].split(",")[-1]}": expected ' in done.stderr
