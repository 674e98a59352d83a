"""The table of routes, as lines."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies

from hr_prometheus.status.rate_table import (
    SORT_KEYS,
    cut_text,
    escape_unprintable,
    format_duration,
    format_rate,
    format_size,
    pad,
    render_table,
    sort_routes,
    text_width,
)
from hr_prometheus.status.rates import Comparison, RouteRates
from hr_prometheus.status.route_counters import Route

LONG = "/cell_neighbour/{cell_id}/direction/north"


def rates(path: str = "/", requests: float = 1, **numbers) -> RouteRates:
    """Return a row of which only *numbers* are not zero."""
    zeros = {"server_errors": 0.0, "client_errors": 0.0, "abandoned": 0.0, "p50": None, "p95": None, "p99": None}
    return RouteRates(Route("GET", path), requests, **{**zeros, "in_progress": 0.0, **numbers})


def render(*rows: RouteRates, sort: str = "rate", **size) -> list[str]:
    """Return the lines as plain text; the total has what the first row has."""
    comparison = Comparison(RouteRates(**{**vars(rows[0]), "route": None}), rows, is_reset=False)
    return ["".join(text for text, _ in line) for line in render_table(comparison, sort, **size)]


def test_a_row():
    """Each value is below its title, and what is zero is a dash."""
    row = rates(LONG, 12.34, server_errors=0.5, p50=0.0042, p95=0.3, p99=12.0, in_progress=3, longest=10.0)
    assert render(row) == [
        f"ROUTE{' ' * 40} REQ/S 5XX/S 4XX/S 499/S    P50    P95    P99  NOW",
        f"all routes{' ' * 35}  12.3  0.50     -     -  4.2ms  300ms >12.0s    3",
        f"GET {LONG}  12.3  0.50     -     -  4.2ms  300ms >12.0s    3",
    ]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("rate", "/b /a /c"), ("errors", "/c /b /a"), ("p50", "/a /b /c"), ("p95", "/b /a /c"), ("p99", "/c /b /a"),
        ("in-progress", "/a /b /c"), ("path", "/a /b /c"),
    ],
)  # fmt: skip
def test_the_order(sort, expected):
    """The highest comes first, and what has no value last; rows that are alike are in the order of their rates."""
    rows = [
        rates("/a", 2, p50=3.0, in_progress=5),
        rates("/b", 3, p95=1.0),
        rates("/c", 1, p99=2.0, server_errors=1.0),
    ]
    assert [row.route.path for row in sort_routes(rows, sort)] == expected.split()


def test_every_key_has_a_test():
    """A key that is added is sorted by something."""
    assert SORT_KEYS == ("rate", "errors", "p50", "p95", "p99", "in-progress", "path")


DETAIL = {"loop": 0.1, "bytes_in": 1.0, "bytes_out": 1.0}


@pytest.mark.parametrize("sort", SORT_KEYS)
@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(width, sort):
    """Whatever is measured and however long a path is, and the column that it is sorted by is shown."""
    lines = render(rates(LONG, **DETAIL), rates("/" + "x" * 500), rates("/短い" * 50), sort=sort, width=width)
    assert max(map(text_width, lines)) <= width
    title = {"rate": "REQ/S", "errors": "5XX/S", "in-progress": "NOW", "path": "ROUTE"}.get(sort, sort.upper())
    assert title in lines[0]


def test_a_route_is_worth_more_than_a_column():
    """Where there is no room the least important columns go, and where there is much there are more."""
    titles = {width: render(rates(LONG, **DETAIL), width=width)[0].split()[1:] for width in (40, 60, 80, 120)}
    assert titles[40] == ["REQ/S", "5XX/S"]
    assert titles[60] == ["REQ/S", "5XX/S", "P95", "P99", "NOW"]
    assert titles[80] == ["REQ/S", "5XX/S", "4XX/S", "499/S", "P50", "P95", "P99", "NOW"]
    assert titles[120] == [*titles[80], "LOOP", "OUT/S", "IN/S"]


def test_what_does_not_fit_the_height_is_counted():
    """The last line says how many routes are missing."""
    rows = [rates(f"/{number}") for number in range(1000)]
    assert len(render(*rows)) == 1002
    lines = render(*rows, height=10)
    assert len(lines) == 10
    assert lines[-1] == "993 more routes"
    assert len(render(*rows[:8], height=10)) == 10
    assert len(render(*rows, height=1)) == 1
    assert render(*rows, height=0) == []


def test_without_a_route():
    """The table of a server without requests has its titles and a total."""
    none = Comparison(rates(requests=0), (), is_reset=False)
    assert len(render_table(none, "rate", width=80)) == 2


@hypothesis.given(text=strategies.text(), width=strategies.integers(1, 30))
def test_a_text_is_cut_to_a_width(text, width):
    """It never takes more columns, and keeps its beginning and its end."""
    text = escape_unprintable(text)
    assert text_width(cut_text(text, width)) <= width
    assert text_width(pad(text, width)) == width
    assert cut_text(text, text_width(text)) == text


def test_the_middle_is_left_out():
    """The ends of a path tell most."""
    assert cut_text(LONG, 21) == "/cell_neig…tion/north"


def test_a_path_cannot_control_the_terminal():
    """A client has chosen it."""
    line = render(rates("/\x1b[2J\r\n\x9b\u202e"))[2]
    assert line.startswith(r"GET /\x1b[2J\r\n\x9b\u202e ")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.004, "0.00"), (9.99, "9.99"), (9.996, "10.0"), (99.9, "99.9"), (99.96, "100"), (9999, "9999"),
     (9999.6, "10.0k"), (123456, "123.5k"), (12345678, "12.3M")],
)  # fmt: skip
def test_a_rate(value, expected):
    """It has three digits or more."""
    assert format_rate(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0001, "0.1ms"), (0.0099, "9.9ms"), (0.00996, "10ms"), (0.9994, "999ms"), (0.9996, "1.0s"), (99.9, "99.9s"),
     (100, "100s")],
)  # fmt: skip
def test_a_duration(value, expected):
    """It has its unit."""
    assert format_duration(value) == expected


def test_a_size():
    """It is a number in bytes, and then with the prefixes of SI."""
    assert [format_size(size) for size in (0, 9999, 1e6, 2.5e9, 1e13)] == ["0", "9999", "1.0M", "2.5G", "10.0T"]
