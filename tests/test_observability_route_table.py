from __future__ import annotations

import pytest
from aiohttp import web

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.observability.route_table import render_table, rows_of, totals, usual_methods
from hr_prometheus.settings import Settings

METHODS = usual_methods(Settings(target="x"))


async def handler(_request):
    return web.Response()


@pytest.fixture
def app(tmp_path):
    """An application with a route of each kind."""
    app = web.Application()
    app.router.add_get("/plain", handler, name="plain", allow_head=False)
    app.router.add_get("/cell/{id}/{side}", handler, name="cell", allow_head=False)
    app.router.add_route("*", "/any", handler)
    app.router.add_static("/static", tmp_path)
    below = web.Application()
    below.router.add_get("/users/{user}", handler, name="user", allow_head=False)
    app.add_subapp("/api", below)
    return app


def test_a_row_for_each_route(app):
    """Methods, names, labels, policies and the worst case of each, and of what no route matches."""
    settings = Settings(
        target="x",
        fixed_routes={"cell": frozenset({"id"})},
        allow_values={"cell": {"side": frozenset({"north", "south"})}},
        path_budget=10,
        detail="basic",
    )
    table = {row.label: row for row in rows_of(app, settings)}
    assert list(table) == [
        "/plain",
        "/cell/{id}/<side>",
        "/any",
        "/static/{filename}",
        "/api/users/<user>",
        "unmatched",
        "malformed",
    ]
    one = 15 + 2 + 1 + 5  # buckets, count and sum, in progress, and five statuses
    assert table["/plain"].series == one
    assert table["/cell/{id}/<side>"].parameters == {"id": "fixed", "side": "north, south, other"}
    assert table["/cell/{id}/<side>"].series == 3 * one
    assert table["/any"].series == table["unmatched"].series == 7 * one
    assert table["/static/{filename}"].methods == ("GET", "HEAD")
    assert table["/api/users/<user>"].name == "user"
    assert table["/api/users/<user>"].series == 11 * one
    assert totals(list(table.values())) == (
        sum(row.series for row in table.values()),
        sum(row.bytes for row in table.values()),
    )


def test_without_a_budget_each_request_of_a_route_is_folded(app):
    """What would be kept is shown as the scrape shows it, as are the allowed values of the same path."""
    allowed = {"cell": {"side": frozenset({"north", "south"})}}
    table = {row.name: row for row in rows_of(app, Settings(target="x", allow_values=allowed, path_budget=0))}
    assert table["cell"].parameters == {"id": "folded", "side": "folded"}
    assert (table["cell"].label, table["cell"].labels) == ("/cell/{id}/{side}", 1)
    assert table["cell"].regex == r"/cell/\{id\}/\{side\}"


def test_methods_that_are_left_out(app):
    """They are in no row, a route without another method has none, and a route for all methods is reckoned without them."""
    app.router.add_get("/read", handler, allow_head=False)
    app.router.add_get("/read-too", handler)
    app.router.add_route("*", "/all", handler)
    settings = Settings(target="x", exclude_methods=("GET", "DELETE"))
    table, before = rows_of(app, settings), {row.label: row for row in rows_of(app, Settings(target="x"))}
    rows = {row.label: row for row in table}
    assert "/read" not in rows
    assert rows["/read-too"].methods == ("HEAD",)
    assert rows["/all"].series * 7 == before["/all"].series * 5
    assert "* is reckoned as 5 methods: HEAD, POST, PUT, PATCH, OPTIONS." in render_table(
        table, usual_methods(settings)
    )


@pytest.mark.parametrize(
    ("pattern", "is_covered"),
    [("/cell/*", True), ("/cell/*/*", True), ("/cell/?*", True), ("/cell/*id*", False), ("/cell/1/*", False),
     ("/cell/??/*", False), ("/cell/[!/]*", True), ("/cell/{id}/{side}", False)],
)  # fmt: skip
def test_a_route_that_is_left_out_has_no_row(app, pattern, is_covered):
    """It is left out if each of its labels is, whatever the values are."""
    table = rows_of(app, Settings(target="x", exclude=(pattern,)))
    assert ("cell" not in {row.name for row in table}) == is_covered


class Cells(web.View):
    """A view with two methods, one of which its subclasses have as well."""

    async def get(self):
        return web.Response()

    async def post(self):
        return web.Response()


class NamedCells(Cells):
    async def patch(self):
        return web.Response()

    async def search(self):
        """Do something that aiohttp takes for no method of a view."""


def test_a_view_has_the_methods_that_its_class_defines():
    """A class-based view is registered for all methods, and answers those that it or its base has."""
    app = web.Application()
    app.router.add_view("/cells", Cells)
    app.router.add_view("/named", NamedCells)
    app.router.add_route("POST", "/one", Cells)
    table = {row.label: row for row in rows_of(app, Settings(target="x", detail="basic"))}
    assert table["/cells"].methods == ("GET", "POST")
    assert table["/named"].methods == ("GET", "PATCH", "POST")
    assert table["/one"].methods == ("POST",)
    assert table["/cells"].series == 2 * table["/one"].series


def test_the_full_detail_costs_more(app):
    """Each level of detail is reckoned with its own metrics."""
    basic, full = (totals(rows_of(app, Settings(target="x", detail=detail)))[0] for detail in ("basic", "full"))
    assert full > 2 * basic


def test_settings_are_checked(app):
    """A name that does not exist is refused, as when the application is run."""
    with pytest.raises(ConfigurationError, match='no route named "cel"'):
        rows_of(app, Settings(target="x", fixed_routes={"cel": frozenset({"id"})}))


def test_the_table_ends_with_the_totals(app):
    """One line a route, a head and the sum."""
    table = rows_of(app, Settings(target="x"))
    lines = render_table(table, METHODS)
    assert len(lines) == len(table) + 3
    assert lines[-2] == "* is reckoned as 7 methods: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS."
    assert lines[0].split() == ["METHODS", "NAME", "PATTERN", "PATH", "LABEL", "PARAMETERS", "LABELS", "SERIES"]
    assert lines[-1].startswith("At worst ")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_the_table_fits(app, width):
    """It is a table where that fits, else a block for each route; only a single value makes a line longer."""
    table = rows_of(app, Settings(target="x", fixed_routes={"cell": frozenset({"id"})}))
    lines = render_table(table, METHODS, width)
    assert not [line for line in lines if len(line) > width and " " in line]
    assert (lines[0].split()[0] == "METHODS") == (width >= max(map(len, render_table(table, METHODS)[:-1])))
    text = "\n".join(lines)
    assert "* is reckoned as 7 methods: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS." in " ".join(lines)
    for row in table:
        for value in (*row.methods, row.pattern, row.label, row.name or "", *row.parameters, f"{row.series:,}"):
            assert value in text
