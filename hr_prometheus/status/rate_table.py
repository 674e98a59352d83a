"""The table of routes, as lines of a width. Each line is made of pieces with a style, which a terminal shows."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hr_prometheus.status.rates import Comparison, RouteRates

    #: Texts, each with one of the styles, or "".
    Line = list[tuple[str, str]]

TITLE, HEADER, SORTED, ERROR, WARNING, QUIET = "title", "header", "sorted", "error", "warning", "quiet"

_NONE = "-"
_GAP = 1
#: Columns of the terminal that a route should have, before a column is left out for it, or a further one is shown.
_LEAST_ROUTE = 24
_ENOUGH_ROUTE = 60


@dataclass(frozen=True)
class Column:
    """A column behind the route. *key* is its name in ``--sort``; *style* is that of a value that is not 0.

    Of the columns that do not fit, the one with the highest *rank* goes first; those *of_detail* are shown where there is
    much room.
    """

    title: str
    key: str
    value: Callable[[RouteRates], float | None]
    format: Callable[[float], str]
    rank: int
    width: int = 5
    style: str = ""
    of_detail: bool = False


def format_rate(value: float) -> str:
    """Return a number a second, in at most five characters below ten million."""
    if value < 9.995:
        return f"{value:.2f}"
    if value < 99.95:
        return f"{value:.1f}"
    return format_size(value)


def format_size(value: float) -> str:
    """Return a number with a prefix of SI, in at most five characters below a thousand tera."""
    for prefix in ("", "k", "M", "G"):
        if value < (9_999.5 if not prefix else 999.95):
            return f"{value:.0f}" if not prefix else f"{value:.1f}{prefix}"
        value /= 1000
    return f"{value:.1f}T"


def format_duration(seconds: float) -> str:
    """Return a duration with its unit, in at most five characters below 10,000 seconds."""
    milliseconds = seconds * 1000
    if milliseconds < 9.95:
        return f"{milliseconds:.1f}ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f}ms"
    return f"{seconds:.1f}s" if seconds < 99.95 else f"{seconds:.0f}s"


def _format_share(share: float) -> str:
    return f"{share * 100:.1f}%"


COLUMNS = (
    Column("REQ/S", "rate", lambda row: row.requests, format_rate, 0),
    Column("5XX/S", "errors", lambda row: row.server_errors, format_rate, 1, style=ERROR),
    Column("4XX/S", "", lambda row: row.client_errors, format_rate, 5, style=WARNING),
    Column("499/S", "", lambda row: row.abandoned, format_rate, 7, style=WARNING),
    Column("P50", "p50", lambda row: row.p50, format_duration, 6, width=6),
    Column("P95", "p95", lambda row: row.p95, format_duration, 2, width=6),
    Column("P99", "p99", lambda row: row.p99, format_duration, 4, width=6),
    Column("NOW", "in-progress", lambda row: row.in_progress, format_size, 3, width=4),
    Column("LOOP", "", lambda row: row.loop, _format_share, 8, width=6, of_detail=True),
    Column("OUT/S", "", lambda row: row.bytes_out, format_size, 9, width=6, of_detail=True),
    Column("IN/S", "", lambda row: row.bytes_in, format_size, 10, width=6, of_detail=True),
)
_PERCENTILES = ("p50", "p95", "p99")
#: What the table can be sorted by: the name of a column, or the path.
PATH = "path"
SORT_KEYS = (*(column.key for column in COLUMNS if column.key), PATH)


def render_table(
    comparison: Comparison, sort: str, *, width: int | None = None, height: int | None = None
) -> list[Line]:
    """Return the lines of the table: titles, all routes together, and each route in the order of *sort*, the highest first.

    No line is wider than *width*, if that is at least 20, and there are no more than *height*; None is any number. If routes
    are left out, the last line says how many.
    """
    rows = sort_routes(comparison.routes, sort)
    names = [_name(row) for row in rows]
    columns, name_width = _fit(comparison, sort, max(map(text_width, names), default=0), width)
    title = pad("ROUTE", name_width)
    lines: list[Line] = [[(title, SORTED if sort == PATH else HEADER)]]
    for column in columns:
        lines[0] += [(" " * _GAP, HEADER), (column.title.rjust(column.width), SORTED if column.key == sort else HEADER)]
    lines.append(_line("all routes", comparison.total, columns, name_width))
    room = len(rows) if height is None or len(rows) + len(lines) <= height else max(height - len(lines) - 1, 0)
    lines += [_line(name, row, columns, name_width) for name, row in zip(names[:room], rows[:room], strict=True)]
    if room < len(rows):
        text = f"{len(rows) - room:,} more routes"
        lines.append([(text if width is None else cut_text(text, width), QUIET)])
    return lines if height is None else lines[:height]


def sort_routes(rows: Sequence[RouteRates], sort: str) -> list[RouteRates]:
    """Return the rows in the order of a key of ``--sort``: the highest first, those alike by their rate and path."""
    value = next((column.value for column in COLUMNS if column.key == sort), lambda _row: 0)

    def order(row: RouteRates) -> tuple[object, ...]:
        label = (row.route.path, row.route.host, row.route.method) if row.route else ()
        return label if sort == PATH else (-(value(row) or 0), -row.requests, label)

    return sorted(rows, key=order)


def cut_text(text: str, width: int) -> str:
    """Return a text of at most *width* columns. Of one that is wider, the middle is left out."""
    if text_width(text) <= width:
        return text
    if width <= 1:
        return "…" * max(width, 0)
    tail = _fitting(text[::-1], (width - 1) // 2)[::-1]
    head = _fitting(text, width - 1 - text_width(tail))
    return f"{head}…{tail}"


def pad(text: str, width: int) -> str:
    """Return a text of exactly *width* columns: cut, or with spaces behind it."""
    text = cut_text(text, width)
    return text + " " * (width - text_width(text))


def text_width(text: str) -> int:
    """Return how many columns of a terminal a text of printable characters takes."""
    return len(text) if text.isascii() else sum(map(_character_width, text))


def escape_unprintable(text: str) -> str:
    """Return a text that moves no cursor and changes no colour: what a client has put into a path stays text."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _fitting(text: str, width: int) -> str:
    """Return the longest beginning of at most *width* columns."""
    taken = 0
    for index, character in enumerate(text):
        taken += _character_width(character)
        if taken > width:
            return text[:index]
    return text


def _name(row: RouteRates) -> str:
    return escape_unprintable(f"{row.route.method} {row.route.host}{row.route.path}" if row.route else "")


def _fit(comparison: Comparison, sort: str, longest: int, width: int | None) -> tuple[list[Column], int]:
    """Return the columns that are shown, and the width of the routes."""
    columns = [column for column in COLUMNS if not column.of_detail or column.value(comparison.total) is not None]
    longest = max(longest, len("all routes"))
    if width is None:
        return columns, longest

    def room() -> int:
        return width - sum(column.width + _GAP for column in columns)

    for column in sorted(columns, key=lambda column: -column.rank):
        least = min(longest, _ENOUGH_ROUTE if column.of_detail else _LEAST_ROUTE)
        if room() < least and (column.key != sort or not sort) and column.rank:
            columns.remove(column)
    return columns, max(min(longest, room()), min(width, len("ROUTE")))


def _line(name: str, row: RouteRates, columns: Sequence[Column], name_width: int) -> Line:
    is_idle = not row.requests and not row.in_progress
    line: Line = [(pad(name, name_width), QUIET if is_idle else TITLE if row.route is None else "")]
    for column in columns:
        value = column.value(row)
        text = column.format(value) if value else _NONE
        if value and column.key in _PERCENTILES and value >= row.longest:
            text = f">{text}"
        line.append((" " * _GAP + text.rjust(column.width), column.style if value else QUIET))
    return line
