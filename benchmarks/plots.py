"""Draw the numbers of a run: ``python benchmarks/plots.py RESULTS.json FOLDER`` writes one PNG for each part."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from measures import Row
from peers import PEERS
from report import columns, text_of
from variants import KINDS

try:
    from matplotlib import pyplot as plt
except ImportError:
    sys.exit("matplotlib is not installed. Use make bench-plots, which installs it.")

#: A variant has one colour in all plots. Shades of blue are ours.
_COLOURS = {
    "bare": "#333333",
    "empty": "#8c8c8c",
    "basic": "#9ecae1",
    "run-basic": "#4292c6",
    "full": "#6baed6",
    "run-full": "#08519c",
    "custom": "#54278f",
    "by-hand": "#2ca02c",
    "published": "#e6842a",
    "published-custom": "#f2b66d",
    "exporter": "#c44e52",
    "opentelemetry": "#b5892f",
}


_TICKS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 5000)


@dataclass(frozen=True)
class Plot:
    """How a part is drawn: its cases, its axis, and whether that is logarithmic because the numbers are far apart."""

    title: str
    axis: str
    cases: tuple[str, ...]
    logarithmic: bool = False


_PLOTS = {
    "overhead": Plot(
        "A request: time over the bare application, × empty middleware",
        "multiple of the empty middleware's (logarithmic)",
        tuple(KINDS),
        logarithmic=True,
    ),
    "growth": Plot(
        "A request with more routes: time over the bare application, × empty middleware",
        "multiple of the empty middleware's (logarithmic)",
        ("10", "1000", "10000"),
        logarithmic=True,
    ),
    "throughput": Plot(
        "Throughput kept, %",
        "% of the bare application's responses for a second of the server's processor",
        ("1", "64", "1000"),
    ),
    "scrape": Plot("A line of a scrape, µs", "µs a line, of 10,000", ("scrape", "generate")),
    "stall": Plot(
        "Longest stall of the event loop during a scrape, ms",
        "ms (logarithmic)",
        ("idle", "1000", "10000", "100000", "own-port"),
        logarithmic=True,
    ),
    "memory": Plot("Memory of a series, bytes", "bytes", ("series",)),
    "start": Plot("From the command to the first answer, ms", "ms", ("answer",)),
}


def draw(part: str, plot: Plot, rows: list[Row], path: str) -> None:
    """Write the bars of one part: a group for each case, a bar for each variant, its number beside it."""
    shape = [column for column in columns(rows, part) if column.case in plot.cases]
    variants = [name for name in PEERS if any(row.variant == name and row.unit not in ("µs", "/s") for row in rows)]
    if part == "scrape":
        variants = [name for name in PEERS if any(row.variant == name for row in rows)]
    if part in ("overhead", "growth", "throughput"):
        variants = [name for name in variants if name not in ("bare", "empty")]
    by_key = {(row.variant, row.case): row for row in rows if row.value is not None}
    thickness = 0.26  # inches
    figure, axes = plt.subplots(figsize=(9.5, 1.5 + thickness * len(shape) * (len(variants) + 1.2)))
    place, ticks = 0.0, {}
    for column in shape:
        ticks[place + (len(variants) - 1) / 2] = column.heading
        for name in variants:
            row = by_key.get((name, column.case))
            if row is not None and row.value is not None:
                axes.barh(place, row.value, height=0.86, color=_COLOURS[name])
            text = text_of(row) if row is not None else "not installed"
            value = row.value if row is not None and row.value is not None else axes.get_xlim()[0]
            axes.annotate(text, (value, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
            place += 1
        place += 1.2
    finish(figure, axes, plot, ticks, variants)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)


def finish(figure: Any, axes: Any, plot: Plot, ticks: dict[float, str], variants: list[str]) -> None:
    """Add axes, title and legend."""
    axes.margins(x=0.12, y=0.02)
    if plot.logarithmic:  # from 1 on, which is the empty middleware, or a millisecond
        axes.set_xscale("log")
        axes.set_xlim(left=1)
        axes.set_xticks([tick for tick in _TICKS if tick < axes.get_xlim()[1]])
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.xaxis.set_minor_locator(plt.NullLocator())
    axes.invert_yaxis()
    axes.set_yticks(list(ticks), list(ticks.values()) if len(ticks) > 1 else [""])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(plot.axis)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_title(plot.title, loc="left", fontweight="bold")
    bars = [plt.Rectangle((0, 0), 1, 1, color=_COLOURS[name]) for name in variants]
    labels = [PEERS[name].label for name in variants]
    figure.legend(bars, labels, loc="upper left", bbox_to_anchor=(0.92, 0.88), frameon=False, fontsize=8)


def main(results: str, folder: str) -> None:
    """Draw all that was measured."""
    try:
        with open(results, encoding="utf-8") as file:
            rows = [Row(**row) for row in json.load(file)["rows"]]
    except FileNotFoundError:
        sys.exit(f'there is no file "{results}". Run make bench first.')
    plt.switch_backend("agg")
    os.makedirs(folder, exist_ok=True)
    for part, plot in _PLOTS.items():
        chosen = [row for row in rows if row.part == part]
        if chosen:
            path = os.path.join(folder, f"{part}.png")
            draw(part, plot, chosen, path)
            sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
