"""The tables of a run, for a terminal, for the manual and for the README."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from peers import PEERS, ROOT
from variants import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from measures import Row


@dataclass(frozen=True)
class Section:
    """A part of the table: its title, and the headings of its cases."""

    title: str
    cases: Mapping[str, str]


SECTIONS = {
    "overhead": Section("A request, over the bare application, × empty middleware", KINDS),
    "calls": Section("An outgoing call of a bare session, and over that", {"call": "a call", "over": "over that"}),
    "growth": Section(
        "The same with more routes", {"10": "10 routes", "1000": "1,000 routes", "10000": "10,000 routes"}
    ),
    "throughput": Section(
        "Throughput kept, of the bare application's",
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
            "own-port": "100,000, own port", "duration": "scrape of 100,000",
        },
    ),
    "memory": Section("Memory of a series", {"series": "bytes", "smaller": "× smaller"}),
    "flat": Section("Kept of a million requests", {"resident": "resident", "blocks": "blocks"}),
    "start": Section("From the command to the first answer", {"answer": "time", "compared": "× aiohttp.web"}),
}  # fmt: skip


class Column(NamedTuple):
    """A column of a table."""

    part: str
    case: str
    heading: str


#: The columns of the manual's second table; the first has all kinds of requests.
_MANUAL_COLUMNS = (
    Column("throughput", "64", "throughput kept"),
    Column("scrape", "scrape", "line of a scrape"),
    Column("stall", "100000", "longest stall"),
    Column("memory", "series", "series"),
    Column("start", "compared", "start"),
)
_MANUAL_VARIANTS = (
    "empty", "basic", "full", "run-basic", "run-full", "by-hand", "published", "exporter", "opentelemetry",
)  # fmt: skip
#: The README's one table.
_README_COLUMNS = (
    Column("overhead", "plain", "a plain request"),
    Column("overhead", "parametrised", "with parameters"),
    Column("overhead", "file", "a file"),
    Column("throughput", "64", "throughput kept"),
    Column("stall", "100000", "longest stall by a scrape"),
)
_README_VARIANTS = ("run-full", "by-hand", "exporter", "opentelemetry")
_OURS = ("basic", "full", "run-basic", "run-full")


def text_of(row: Row | None) -> str:
    """Return a number and its unit as text."""
    if row is None:
        return "-"
    if row.value is None:
        return "not installed"
    digits = 0 if row.unit in ("%", "/s", "kB", "B", "") or abs(row.value) >= 100 else 2 if abs(row.value) < 10 else 1
    separator = "" if row.unit == "%" else " "
    return f"{row.value:,.{digits}f}{separator}{row.unit}".strip()


def columns(rows: Sequence[Row], part: str) -> list[Column]:
    """Return the columns of a part. Of the kinds of requests, the one that costs most with hr-prometheus is last."""

    def cost(column: Column) -> float:
        own = [row for row in rows if row.part == part and row.case == column.case and row.variant in _OURS]
        return max((row.value or 0.0 for row in own), default=0.0)

    shape = [Column(part, case, heading) for case, heading in SECTIONS[part].cases.items()]
    return sorted(shape, key=cost) if part == "overhead" else shape


def lines(rows: Sequence[Row], shape: Sequence[Column], variants: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Iterate over the label and the numbers of each variant that has any in these columns."""
    by_key = {(row.part, row.variant, row.case): row for row in rows}
    for name in variants:
        line = [by_key.get((column.part, name, column.case)) for column in shape]
        if any(line):
            yield PEERS[name].label, [text_of(row) for row in line]


def table(rows: Sequence[Row]) -> str:
    """Return all rows as aligned text: a section for each part, a line for each variant, a column for each case."""
    sections = []
    for part, section in SECTIONS.items():
        shape = columns(rows, part)
        text = [f"{section.title:<57}" + "".join(f"  {column.heading:>12}" for column in shape)]
        for label, values in lines(rows, shape, PEERS):
            aligned = (
                f"{value:>{max(12, len(column.heading)) + 2}}" for value, column in zip(values, shape, strict=True)
            )
            text.append(f"  {label:<55}" + "".join(aligned))
        if len(text) > 1:
            sections.append("\n".join(text))
    return "\n\n".join(sections)


def markdown(rows: Sequence[Row]) -> str:
    """Return the manual's tables: requests of all kinds, and everything else."""
    shapes = {"a request": columns(rows, "overhead"), "everything else": _MANUAL_COLUMNS}
    return "\n\n".join(_markdown_table(rows, title, shape, _MANUAL_VARIANTS) for title, shape in shapes.items())


def summary(rows: Sequence[Row]) -> str:
    """Return the README's table, a part of the manual's."""
    return _markdown_table(rows, "", _README_COLUMNS, _README_VARIANTS)


def _markdown_table(rows: Sequence[Row], title: str, shape: Sequence[Column], variants: Iterable[str]) -> str:
    cells = [[title, *(column.heading for column in shape)], ["---"] * (len(shape) + 1)]
    for label, values in lines(rows, shape, variants):
        cells.append([label, *(value.replace(" ", "\u00a0") for value in values)])  # a number keeps its unit
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def write_tables(rows: Sequence[Row], conditions: str) -> None:
    """Put the tables between their marks: those of the manual with the conditions that they belong to, and the README's."""
    _write("docs/explanation/costs.md", f"{markdown(rows)}\n\n{conditions}.\n")
    _write("README.md", f"{summary(rows)}\n")


def _write(name: str, tables: str) -> None:
    path = os.path.join(ROOT, name)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    pattern = r"(<!-- costs: .*? -->\n).*?(<!-- /costs -->)"
    changed = re.sub(pattern, lambda match: match[1] + tables + match[2], text, flags=re.DOTALL)
    with open(path, "w", encoding="utf-8") as file:
        file.write(changed)
