from __future__ import annotations

import pytest
from aiohttp import web

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.labels.policies import Policies, allowed_values, fixed_parameters, safety_of

CELL = "/cell_neighbour/{cell_id}/direction/{direction}"


async def handler(_request):
    return web.Response()


def application(**named: str) -> web.Application:
    app = web.Application()
    for name, path in named.items():
        app.router.add_get(path, handler, name=name)
    return app


@pytest.mark.parametrize(
    "wrong", [["cell_id"], (23,), 23, "cell", {"cell": {"a": "b"}}, {"cell": 16}, {"cell": "cell_id"}, {"cell": [1]}]
)
def test_fixed_parameters_of_a_wrong_type(wrong):
    """Anything but a mapping of names to lists of names is a ValueError."""
    with pytest.raises(ValueError, match="Expected"):
        fixed_parameters(wrong)


@pytest.mark.parametrize(
    ("fixed", "sentence"),
    [
        (
            {"cel": {"cell_id"}},
            "fixed_routes_parameters={'cel': ['cell_id']}: the application has no route named \"cel\". Did you mean \"cell\"? "
            "Named routes: cell, health.",
        ),
        (
            {"cell": {"cellid"}},
            'fixed_routes_parameters={\'cell\': [\'cellid\']}: the route "cell" has no parameter "cellid". Did you mean "cell_id"? '
            "Its parameters: cell_id, direction.",
        ),
        (
            {"health": {"x"}},
            "fixed_routes_parameters={'health': ['x']}: the route \"health\" has no parameters, so the setting has no effect. Remove it.",
        ),
        (
            {"*": {"nothing"}},
            "fixed_routes_parameters={'*': ['nothing']}: the application has no parameter \"nothing\". "
            "Its parameters: cell_id, direction.",
        ),
    ],
)
def test_names_that_do_not_exist_are_refused(fixed, sentence):
    """The error names the routes or parameters that exist."""
    app = web.Application()
    app.add_subapp("/sub", application(cell=CELL, health="/health"))
    with pytest.raises(ConfigurationError) as caught:
        Policies(fixed, {}).check(app)
    assert str(caught.value) == sentence


def test_names_that_exist_are_accepted():
    """Names and parameters of every level, and the stars, are fine; so is a star where there is nothing yet."""
    app = application(cell=CELL)
    Policies({"cell": {"cell_id", "*"}, "*": {"direction", "*"}}, {}).check(app)
    Policies({"*": {"*"}}, {}).check(web.Application())


@pytest.mark.parametrize(
    "wrong", [["cell"], {"cell": ["direction"]}, {"cell": {"direction": "north"}}, {"cell": {"direction": []}}]
)
def test_allowed_values_of_a_wrong_type(wrong):
    """Anything but a mapping of names to mappings of lists is a ValueError."""
    with pytest.raises(ValueError, match="Expected a mapping"):
        allowed_values(wrong)


def test_a_contradiction():
    """One parameter of one route cannot be fixed and have allowed values; with a star, the list wins."""
    with pytest.raises(ConfigurationError, match="is fixed and has allowed values as well"):
        Policies({"cell": ["direction"]}, {"cell": {"direction": ["north"]}})
    assert Policies({"cell": ["*"]}, {"cell": {"direction": ["north"]}})


@pytest.mark.parametrize(
    ("allowed", "words"),
    [
        ({"cel": {"direction": ["north"]}}, 'no route named "cel". Did you mean "cell"?'),
        ({"cell": {"directon": ["north"]}}, 'no parameter "directon". Did you mean "direction"?'),
        ({"number": {"id": ["1", "one"]}}, 'no request can have "one" for the parameter "id"'),
        ({"number": {"id": ["1/2"]}}, 'no request can have "1/2"'),
    ],
)
def test_values_that_can_never_occur(allowed, words):
    """A list is checked against the router, name by name and value by value."""
    app = application(cell=CELL, number=r"/number/{id:\d+}")
    with pytest.raises(ConfigurationError) as caught:
        Policies({}, allowed).check(app)
    assert words in str(caught.value)
    assert str(caught.value).startswith("allow_values={'")


@pytest.mark.parametrize(
    "value",
    [
        "", "1948", "north", "en-GB", "v1.2.3", "~ada", "index.html", "2024-11-29", "12345678", "a" * 32,
        "north-west-corridor", "abcdefgh1234567", "1-2-3-4-5-6-7-8-",
    ],
)  # fmt: skip
def test_values_that_are_kept(value):
    """Names, short numbers, dates, versions and languages point at no person."""
    assert safety_of(1)(value)
    assert safety_of(2)((value, "north"))


@pytest.mark.parametrize(
    "value",
    [
        "ada@example.org", "+4915112345678", "015112345", "123456789", "1.2.3.4.5.6.7.8.9",
        "d9428888-122b-11e1-b85c-61cd3cbb3210", "a1b2c3d4e5f6g7h8", "session_a1b2c3d4e5f6g7h8", "abcdefgh12345678",
        "nX0-4dfVq_Lp2rEw", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ.", "a" * 33, "Ada Lovelace", "Zoë", "a/b", "a%2Fb",
        "٣", "north\n", "{cell_id}",
    ],
)  # fmt: skip
def test_values_that_are_not(value):
    """Addresses, telephone numbers, UUIDs, tokens, keys, long texts and everything that is no plain word."""
    assert not safety_of(1)(value)
    assert not safety_of(2)((value, "north"))
    assert not safety_of(2)(("north", value))


def test_an_unknown_keep_values():
    """The error names both values that exist."""
    with pytest.raises(ConfigurationError, match='unknown keep_values: \'some\'. Expected "safe" or "all".'):
        Policies({}, {}, "some")
