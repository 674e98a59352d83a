"""From rows to what people read: the table of a run, and the table of the README."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peers import PEERS, ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from measures import Row


@dataclass(frozen=True)
class Section:
    """A part of the table: what it shows, and the headings of its cases."""

    title: str
    cases: Mapping[str, str]


SECTIONS = {
    "overhead": Section(
        "A request, over the bare application, × empty middleware",
        {"plain": "plain", "parametrised": "parametrised", "fixed": "fixed parameter", "folded": "over budget"},
    ),
    "growth": Section(
        "The same with more routes", {"10": "10 routes", "1000": "1,000 routes", "10000": "10,000 routes"}
    ),
    "throughput": Section(
        "Throughput kept, of the bare application (each on one processor)",
        {"1": "1 connection", "64": "64 connections", "1000": "1,000 connections"},
    ),
    "scrape": Section(
        "A line of a scrape of 10,000",
        {"scrape": "GET /metrics", "generate": "generate_latest", "faster": "× faster"},
    ),
    "stall": Section(
        "Longest stall of the event loop",
        {
            "idle": "idle", "1000": "1,000 lines", "10000": "10,000 lines", "100000": "100,000 lines",
            "duration": "and takes",
        },
    ),
    "memory": Section("Memory of a series", {"series": "bytes", "smaller": "× smaller"}),
    "flat": Section("Kept of a million requests", {"resident": "resident", "blocks": "blocks"}),
    "start": Section("From the command to the first answer", {"answer": "time", "compared": "× aiohttp.web"}),
}  # fmt: skip

#: The README's columns: part, case, heading.
_README = (
    ("overhead", "plain", "request, plain route"),
    ("overhead", "parametrised", "parametrised route"),
    ("overhead", "fixed", "fixed parameter"),
    ("throughput", "64", "throughput kept"),
    ("scrape", "scrape", "line of a scrape"),
    ("stall", "100000", "longest stall"),
    ("memory", "series", "series"),
    ("start", "compared", "start"),
)
_README_VARIANTS = (
    "empty", "basic-middleware", "full-middleware", "basic", "full", "by-hand", "published", "exporter", "opentelemetry",
)  # fmt: skip


def shown(row: Row | None) -> str:
    """Return a number as it is read, with its unit."""
    if row is None:
        return "-"
    if row.value is None:
        return "not installed"
    digits = 0 if row.unit in ("%", "/s", "kB", "B", "") or abs(row.value) >= 100 else 2 if abs(row.value) < 10 else 1
    separator = "" if row.unit == "%" else " "
    return f"{row.value:,.{digits}f}{separator}{row.unit}".strip()


def table(rows: Sequence[Row]) -> str:
    """Return all rows as aligned text: a section for each part, a line for each variant, a column for each case."""
    found = {(row.part, row.variant, row.case): row for row in rows}
    text: list[str] = []
    for part, section in SECTIONS.items():
        variants = [name for name in PEERS if any(key[:2] == (part, name) for key in found)]
        if not variants:
            continue
        text += ["", f"{section.title:<58}" + "".join(f"{heading:>19}" for heading in section.cases.values())]
        for name in variants:
            cells = [shown(found.get((part, name, case))) for case in section.cases]
            text.append(f"  {PEERS[name].label:<56}" + "".join(f"{cell:>19}" for cell in cells))
    return "\n".join(text[1:])


def markdown(rows: Sequence[Row]) -> str:
    """Return the table of the README: those who can be compared, in the columns that matter most."""
    found = {(row.part, row.variant, row.case): row for row in rows}
    text = ["| | " + " | ".join(heading for *_, heading in _README) + " |", "|---" * (len(_README) + 1) + "|"]
    for name in _README_VARIANTS:
        cells = [shown(found.get((part, name, case))) for part, case, _ in _README]
        text.append(f"| {PEERS[name].label} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def write_readme(rows: Sequence[Row], conditions: str) -> None:
    """Put the table, and the conditions under which it was measured, between their marks in the README."""
    path = os.path.join(ROOT, "README.md")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    pattern = r"(<!-- costs: .*? -->\n).*?(<!-- /costs -->)"
    changed = re.sub(
        pattern, lambda match: match[1] + markdown(rows) + f"\n\n{conditions}.\n" + match[2], text, flags=re.DOTALL
    )
    with open(path, "w", encoding="utf-8") as file:
        file.write(changed)
