"""Draw the first panels of dashboard.json from what a Prometheus has recorded, where there is no Grafana to look at.

    python examples/observability/picture.py http://127.0.0.1:9090 --output examples/observability/dashboard.png

Needs matplotlib (`pip install --group plots`). The queries, their places and their units are those of the dashboard.
"""

import argparse
import json
import math
import re
import time
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

ROWS = ("Overview", "Requests", "Routes")
STEP = 5  # seconds
GAP = 1.5 * STEP / 60  # minutes without a value, over which no line is drawn
INK, PAPER, GRID, DIM = "#d8d9da", "#181b1f", "#2c3235", "#9fa7b3"
COLOURS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#b877d9", "#f2495c", "#8ab8ff", "#96d98d")
HEAT = LinearSegmentedColormap.from_list("heat", [PAPER, "#7a3b12", "#ff780a", "#ffe8c4"])


class Prometheus:
    """What one Prometheus has recorded in the last *minutes*."""

    def __init__(self, url: str, minutes: float) -> None:
        self.url = url
        self.end = time.time() // STEP * STEP
        self.start = self.end - minutes * 60

    def range(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an expression."""
        return self._ask("query_range", query=expression, start=self.start, end=self.end, step=STEP)

    def now(self, expression: str) -> list[dict[str, Any]]:
        """Return the values of an expression at the end."""
        return self._ask("query", query=expression, time=self.end)

    def _ask(self, what: str, **parameters: object) -> list[dict[str, Any]]:
        with urlopen(f"{self.url}/api/v1/{what}?{urlencode(parameters)}") as answer:  # noqa: S310  # whatever one gives
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return result


def shown(number: float, unit: str) -> str:
    """Return a number as people read it."""
    if unit == "percentunit":
        return f"{number:.1%}" if number < 0.1 else f"{number:.0%}"
    if unit == "s":
        return f"{number * 1000:.3g} ms" if number < 1 else f"{number:.3g} s"
    return f"{number:.3g}"


def chosen_panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the panels that stand in the rows of interest, with the rows."""
    found, is_wanted = [], False
    for panel in board["panels"]:
        if panel["type"] == "row":
            is_wanted = panel["title"] in ROWS
        if is_wanted:
            found.append(panel)
    return found


def legend_of(template: str, labels: dict[str, str]) -> str:
    """Fill a series' labels into Grafana's template of the legend."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), template)


def query_of(target: dict[str, Any], job: str) -> str:
    """Return the query of a panel with its variables filled in, as Grafana does."""
    filled = {"$__rate_interval": "1m", "$job": job, "$instance": ".*", "$path": ".*"}
    expression: str = target["expr"]
    for variable, value in filled.items():
        expression = expression.replace(variable, value)
    return expression


def draw_number(axes: Axes, panel: dict[str, Any], prometheus: Prometheus, job: str) -> None:
    """Draw one number."""
    (series,) = prometheus.now(query_of(panel["targets"][0], job))
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.text(
        0.5, 0.42, shown(float(series["value"][1]), unit), color=COLOURS[0], fontsize=22, ha="center", va="center"
    )
    axes.set_xticks([])
    axes.set_yticks([])


def draw_graph(axes: Axes, panel: dict[str, Any], prometheus: Prometheus, job: str) -> None:
    """Draw the series of a panel over time."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    lines = [
        (legend_of(target["legendFormat"], series["metric"]), series["values"])
        for target in panel["targets"]
        for series in prometheus.range(query_of(target, job))
    ]
    for colour, (name, values) in zip(COLOURS, lines[: len(COLOURS)], strict=False):
        times = [(at - prometheus.end) / 60 for at, _ in values]
        numbers = [float(number) for _, number in values]
        for index in reversed([index for index in range(1, len(times)) if times[index] - times[index - 1] > GAP]):
            times.insert(index, times[index])
            numbers.insert(index, math.nan)
        axes.plot(times, numbers, color=colour, linewidth=1.2, label=name, marker=".", markersize=0.6)
        axes.fill_between(times, numbers, color=colour, alpha=0.08)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: shown(number, unit)))
    finish_time_axis(axes, prometheus)
    if len(lines) > len(COLOURS):
        axes.text(
            0.99,
            0.97,
            f"{len(COLOURS)} of {len(lines)} series",
            transform=axes.transAxes,
            color=DIM,
            fontsize=7,
            ha="right",
            va="top",
        )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=5, frameon=False, fontsize=7, labelcolor=INK)


def draw_heatmap(axes: Axes, panel: dict[str, Any], prometheus: Prometheus, job: str) -> None:
    """Draw how many requests were in each bucket over time."""
    found = prometheus.range(query_of(panel["targets"][0], job))
    found.sort(key=lambda series: float(series["metric"]["le"]))
    bounds = [series["metric"]["le"] for series in found]
    times = sorted({at for series in found for at, _ in series["values"]})
    cumulative = [dict(series["values"]) for series in found]
    cells = [
        [float(own.get(at, 0)) - (float(cumulative[index - 1].get(at, 0)) if index else 0) or math.nan for at in times]
        for index, own in enumerate(cumulative)
    ]
    edges = [(at - prometheus.end) / 60 for at in (*times, times[-1] + STEP)]
    axes.pcolormesh(edges, range(len(bounds) + 1), cells, cmap=HEAT, norm=PowerNorm(0.4, vmin=0))
    labels = [f"\N{LESS-THAN OR EQUAL TO} {shown(float(bound), 's')}" for bound in bounds[:-1]]
    axes.set_yticks([index + 0.5 for index in range(len(bounds))], [*labels, "more"], fontsize=6)
    axes.grid(visible=False)
    finish_time_axis(axes, prometheus)


def draw_bars(axes: Axes, panel: dict[str, Any], prometheus: Prometheus, job: str) -> None:
    """Draw the values of a panel's series at the end."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    target = panel["targets"][0]
    found = sorted(prometheus.now(query_of(target, job)), key=lambda series: float(series["value"][1]))
    names = [legend_of(target["legendFormat"], series["metric"]) for series in found]
    numbers = [float(series["value"][1]) for series in found]
    axes.barh(range(len(names)), numbers, color=COLOURS[2], alpha=0.35, height=0.8)
    for place, (name, number) in enumerate(zip(names, numbers, strict=True)):
        axes.text(0.02, place, name, color=INK, fontsize=7, va="center", transform=axes.get_yaxis_transform())
        axes.text(
            0.98,
            place,
            shown(number, unit),
            color=INK,
            fontsize=7,
            va="center",
            ha="right",
            transform=axes.get_yaxis_transform(),
        )
    axes.set_ylim(min(-0.6, len(names) - 10.4), max(len(names) - 0.4, 0.6))
    axes.set_xticks([])
    axes.set_yticks([])


def finish_time_axis(axes: Axes, prometheus: Prometheus) -> None:
    """Count the time in minutes before the end."""
    axes.set_xlim((prometheus.start - prometheus.end) / 60, 0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda minute, _: f"{minute:.0f} min" if minute else "now"))


DRAW = {"stat": draw_number, "timeseries": draw_graph, "heatmap": draw_heatmap, "bargauge": draw_bars}


def draw(board: dict[str, Any], prometheus: Prometheus, job: str, output: Path) -> None:
    """Draw the panels where the dashboard has them."""
    panels = chosen_panels(board)
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    mpl.rcParams.update(
        {"text.color": INK, "axes.labelcolor": INK, "xtick.color": DIM, "ytick.color": DIM, "font.size": 8}
    )
    figure = Figure(figsize=(13, height * 0.34), facecolor="#111217")
    for panel in panels:
        place = panel["gridPos"]
        left, top = place["x"] / 24, 1 - place["y"] / height
        if panel["type"] == "row":
            figure.text(left + 0.008, top - 0.65 / height, panel["title"], fontsize=11, fontweight="bold", va="center")
            continue
        is_plot = panel["type"] in ("timeseries", "heatmap")
        below, beside = (1.9, 0.042) if is_plot else (0.3, 0.006)
        axes = figure.add_axes(
            (
                left + beside,
                top - (place["h"] - below) / height,
                place["w"] / 24 - beside - 0.008,
                (place["h"] - below - 1.0) / height,
            ),
            facecolor=PAPER,
        )
        axes.set_title(panel["title"], fontsize=8.5, loc="left", color=INK)
        axes.grid(color=GRID, linewidth=0.6)
        axes.tick_params(length=0, labelsize=7)
        for spine in axes.spines.values():
            spine.set_color(GRID)
        DRAW[panel["type"]](axes, panel, prometheus, job)
    raw = BytesIO()
    figure.savefig(raw, dpi=100)
    Image.open(raw).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(output, optimize=True)


def main() -> None:
    """Read the command line, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("prometheus", metavar="URL", help="address of Prometheus")
    parser.add_argument("--output", type=Path, default=Path("dashboard.png"))
    parser.add_argument("--minutes", type=float, default=15, help="how far to look back")
    parser.add_argument("--job", default="cells")
    options = parser.parse_args()
    board = json.loads((Path(__file__).parent / "dashboard.json").read_text())
    draw(board, Prometheus(options.prometheus, options.minutes), options.job, options.output)


if __name__ == "__main__":
    main()
