from __future__ import annotations

from decimal import Decimal

import pytest

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.observability.objectives import format_percent, objectives_of, parse_objectives


def test_budgets():
    """A percentage is that of the application, or of the route before the sign; 99.9 is the default."""
    assert parse_objectives(["99.95", "cell=99.5", "a.b-c:d=90"]) == {
        "*": Decimal("0.0005"),
        "cell": Decimal("0.005"),
        "a.b-c:d": Decimal("0.1"),
    }
    assert parse_objectives([]) == {"*": Decimal("0.001")}


@pytest.mark.parametrize(
    "text", ["", "all", "100", "0", "-1", "101", "cell=", "=99", "cell=x", "nan", "99,9", "inf", "99.9%"]
)
def test_what_is_no_objective(text):
    """The sentence shows the value and two examples."""
    with pytest.raises(ConfigurationError, match="is not understood. Expected a percentage from 50 to below 100"):
        parse_objectives([text])


@pytest.mark.parametrize("text", ["0.999", "49.9", "1", "cell=0.999"])
def test_a_share_is_no_percentage(text):
    """99.9 % is written as 99.9; what is below 50 was meant otherwise."""
    with pytest.raises(ConfigurationError, match=f'"{text}" is below 50. Expected percent .* for example 99.9'):
        parse_objectives([text])
    assert parse_objectives(["50"]) == {"*": Decimal("0.5")}


def test_two_for_the_same():
    """One of them has to go."""
    with pytest.raises(ConfigurationError, match='"cell=98": there is another one'):
        parse_objectives(["cell=99", "cell=98"])


def test_a_route_with_an_objective_is_judged_by_it_alone(table):
    """Its requests are left out of the application's objective, as are scrapes and what no route matches."""
    every, cell = objectives_of(parse_objectives(["cell=99"]), table, "/metrics")
    assert every.selections == (('path!~"unmatched|malformed|/metrics"',),)
    assert every.exclusions == cell.selections == (('path="/cells/{cell}"', 'method=~"GET"'),)
    assert (cell.route, cell.path, cell.method) == ("cell", "/cells/{cell}", "GET")
    assert (every.route, every.path, every.method) == ("*", "/{tail}", "GET")


def test_an_application_without_routes():
    """Without a target, or routes, there is the objective of the application."""
    (every,) = objectives_of(parse_objectives([]), [], "/metrics")
    assert (every.path, every.method) == ("/", "GET")


def test_if_each_route_has_an_objective(table):
    """Nothing is left for one of the application."""
    rows = [row for row in table if row.name in {"cell", None}]
    assert [objective.route for objective in objectives_of(parse_objectives(["cell=99"]), rows, "/metrics")] == ["cell"]


def test_an_unknown_route(table):
    """The sentence names the nearest one and all others; without a target it asks for that."""
    with pytest.raises(
        ConfigurationError, match='"cel=99.5": the application has no route named "cel". Did you mean "cell"'
    ):
        objectives_of(parse_objectives(["cel=99.5"]), table, "/metrics")
    with pytest.raises(ConfigurationError, match="Give its TARGET as well"):
        objectives_of(parse_objectives(["cell=99.5"]), [], "/metrics")


def test_percentages():
    """They are written as people do."""
    assert [format_percent(Decimal(share)) for share in ("0.001", "0.1", "1", "0.00001")] == [
        "0.1",
        "10",
        "100",
        "0.001",
    ]
