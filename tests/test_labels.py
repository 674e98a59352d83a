from __future__ import annotations

import logging

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.labels import (
    Labels,
    check_fixed_parameters,
    fixed_parameters,
    path_with_fixed_parameters,
    template,
    valid_text,
)


async def handler(_request):
    return web.Response()


def application(*paths: str, **named: str) -> web.Application:
    """Make an application with a GET route for each path, named or not."""
    app = web.Application()
    for path in paths:
        app.router.add_get(path, handler)
    for name, path in named.items():
        app.router.add_get(path, handler, name=name)
    return app


async def described(app, labels, path, method="GET"):
    """Return the labels of a request that the application has matched."""
    request = make_mocked_request(method, path)
    match_info = await app.router.resolve(request)
    match_info.add_app(app)
    request._match_info = match_info
    return labels.find(request)


CELL = "/cell_neighbour/{cell_id}/direction/{direction}"


@pytest.mark.parametrize(
    ("fixed", "label"),
    [
        ({}, "/cell_neighbour/1948/direction/north"),
        ({"cell": ["cell_id"]}, "/cell_neighbour/{cell_id}/direction/north"),
        ({"cell": ("direction",)}, "/cell_neighbour/1948/direction/{direction}"),
        ({"cell": {"cell_id", "direction"}}, CELL),
        ({"cell": ["*"]}, CELL),
        ({"*": ["*"]}, CELL),
        ({"*": ["cell_id"]}, "/cell_neighbour/{cell_id}/direction/north"),
        ({"*": ["cell_id"], "cell": ["direction"]}, CELL),
    ],
)
async def test_fixed_parameters_appear_by_name(fixed, label):
    """A fixed parameter is shown as {name}; the others keep their value."""
    app = application(cell=CELL)
    assert await described(app, Labels(tuple, fixed=fixed), "/cell_neighbour/1948/direction/north") == ("GET", label)


async def test_routes_of_every_kind_have_their_label(tmp_path):
    """Plain, parametrised, static, nested and unmatched requests are labelled as documented."""
    app = application("/plain", "/café", r"/number/{id:\d+}", "/proxy/{tail:.*}")
    app.router.add_static("/static", tmp_path)
    app.router.add_route("*", "/any", handler)
    below = application("", "/users/{user}")
    app.add_subapp("/api", below)
    labels = Labels(tuple)
    for path, label in {
        "/plain": "/plain",
        "/caf%C3%A9": "/café",
        "/number/12": "/number/12",
        "/number/twelve": "unmatched",
        "/proxy/a/b": "/proxy/a/b",
        "/static/a.css": "/static/{filename}",
        "/static/deep/b.css": "/static/{filename}",
        "/api": "/api",
        "/api/users/ada": "/api/users/ada",
        "/api/nothing": "unmatched",
        "/nothing": "unmatched",
    }.items():
        assert await described(app, labels, path) == ("GET", label)
    assert await described(app, labels, "/plain", "DELETE") == ("DELETE", "unmatched")


async def test_static_files_at_the_root(tmp_path):
    """Static files at / have one label too."""
    app = web.Application()
    app.router.add_static("/", tmp_path)
    assert await described(app, Labels(tuple), "/index.html") == ("GET", "/{filename}")


def test_the_text_between_parameters_is_decoded():
    """What is fixed in a route is written as in a concrete path, though aiohttp keeps it percent-encoded."""
    resource = web.Application().router.add_resource("/café/{cell_id}/{direction}")
    values = {"cell_id": "1", "direction": "n e"}
    assert path_with_fixed_parameters(resource, values, {"cell_id"}) == "/café/{cell_id}/n e"
    assert template(resource) == "/café/{cell_id}/{direction}"


async def test_methods_outside_the_registry_are_unknown():
    """A client cannot make a series by inventing a method; the application can, by registering it."""
    app = web.Application()
    app.router.add_route("*", "/any", handler)
    app.router.add_route("FROBNICATE", "/own", handler)
    labels = Labels(tuple)
    assert await described(app, labels, "/any", "PROPFIND") == ("PROPFIND", "/any")
    assert await described(app, labels, "/any", "INVENTED") == ("unknown", "/any")
    assert await described(app, labels, "/any", "ANOTHER") == ("unknown", "/any")
    assert await described(app, labels, "/own", "FROBNICATE") == ("FROBNICATE", "/own")


async def test_a_spent_budget_folds_into_the_template(caplog):
    """Known labels go on, new values get the template, one warning names the route and the cure."""
    folded = []
    app = application(cell=CELL, other="/other/{id}")
    labels = Labels(tuple, path_budget=2, folded=folded.append)
    for number in range(5):
        await described(app, labels, f"/cell_neighbour/{number}/direction/north")
    with caplog.at_level(logging.WARNING):
        assert await described(app, labels, "/cell_neighbour/9/direction/north") == ("GET", CELL)
    assert await described(app, labels, "/cell_neighbour/0/direction/north") == (
        "GET",
        "/cell_neighbour/0/direction/north",
    )
    assert await described(app, labels, "/other/1") == ("GET", "/other/1")  # each route has its own budget
    assert folded == [CELL] * 4
    (warning,) = caplog.records
    assert f"The route {CELL} has used its budget of 2 path labels" in warning.message
    assert "--fixed-route cell=cell_id" in warning.message


async def test_the_budget_is_one_for_all_methods_of_a_route():
    """POST and GET of one pattern share its labels, and so its budget."""
    app = web.Application()
    app.router.add_route("*", "/a/{x}", handler)
    labels = Labels(tuple, path_budget=1)
    assert await described(app, labels, "/a/1", "POST") == ("POST", "/a/1")
    assert await described(app, labels, "/a/1", "GET") == ("GET", "/a/1")
    assert await described(app, labels, "/a/2", "GET") == ("GET", "/a/{x}")


@given(st.lists(st.tuples(st.text("abc/%25é ", min_size=1, max_size=8), st.sampled_from("NS"))), st.integers(0, 5))
async def test_labels_are_bounded_whatever_is_asked_for(requests, budget):
    """There are at most budget + 1 labels a route, and once folded a value never leaks."""
    app = application(route="/r/{value}/{side}")
    labels = Labels(tuple, path_budget=budget)
    seen = set()
    for value, side in requests:
        label = (await described(app, labels, f"/r/{value}/{side}"))[1]
        if label == "unmatched":
            continue
        assert label in seen or len(seen - {"/r/{value}/{side}"}) < budget or label == "/r/{value}/{side}"
        seen.add(label)
    assert len(seen - {"/r/{value}/{side}"}) <= budget


async def test_excluded_paths_have_no_labels():
    """A pattern leaves requests out by their path label, before they take from the budget."""
    app = application("/health", "/a/{x}")
    labels = Labels(tuple, exclude=["/health*", "/a/secret*", "unmatched"], path_budget=1)
    assert await described(app, labels, "/health") is None
    assert await described(app, labels, "/nothing") is None
    assert await described(app, labels, "/a/secret1") is None
    assert await described(app, labels, "/a/1") == ("GET", "/a/1")
    assert await described(app, labels, "/a/secret2") is None


def test_text_that_utf8_cannot_encode_is_escaped():
    """A raw byte from the pure-Python parser becomes its percent-escape; other text is left as it is."""
    assert valid_text("/caf\udce9/é") == "/caf%E9/é"
    assert valid_text("\ud800") == "\N{REPLACEMENT CHARACTER}"
    assert valid_text('/"\\\n') == '/"\\\n'


def test_long_labels_are_cut():
    """A path of eight kilobytes is not carried through every scrape; the cut is marked."""
    assert valid_text("/" + "x" * 999) == "/" + "x" * 999
    assert valid_text("/" + "x" * 8000) == "/" + "x" * 998 + "…"


@pytest.mark.parametrize(
    "wrong", [["cell_id"], (23,), 23, "cell", {"cell": {"a": "b"}}, {"cell": 16}, {"cell": "cell_id"}, {"cell": [1]}]
)
def test_fixed_parameters_of_a_wrong_type(wrong):
    """Whatever is no mapping of names to lists of names is a ValueError."""
    with pytest.raises(ValueError, match="Expected"):
        fixed_parameters(wrong)


@pytest.mark.parametrize(
    ("fixed", "sentence"),
    [
        (
            {"cel": {"cell_id"}},
            '--fixed-route "cel=cell_id": the application has no route named "cel". Did you mean "cell"? '
            "Named routes: cell, health.",
        ),
        (
            {"cell": {"cellid"}},
            '--fixed-route "cell=cellid": the route "cell" has no parameter "cellid". Did you mean "cell_id"? '
            "Its parameters: cell_id, direction.",
        ),
        (
            {"health": {"x"}},
            '--fixed-route "health=x": the route "health" has no parameters, so there is nothing to fix. '
            "Remove the setting.",
        ),
        (
            {"*": {"nothing"}},
            '--fixed-route "*=nothing": the application has no parameter "nothing". '
            "Its parameters: cell_id, direction.",
        ),
    ],
)
def test_names_that_do_not_exist_are_refused(fixed, sentence):
    """A wrong route or parameter is a sentence which says what there is."""
    app = web.Application()
    app.add_subapp("/sub", application(cell=CELL, health="/health"))
    with pytest.raises(ConfigurationError) as caught:
        check_fixed_parameters(app, fixed)
    assert str(caught.value) == sentence


def test_names_that_exist_are_accepted():
    """Names and parameters of every level, and the stars, are fine; so is a star where there is nothing yet."""
    app = application(cell=CELL)
    check_fixed_parameters(app, {"cell": {"cell_id", "*"}, "*": {"direction", "*"}})
    check_fixed_parameters(web.Application(), {"*": {"*"}})


async def test_texts_that_are_recorded_as_another_are_not_kept():
    """Of the paths that share a label, because it is cut or escaped, there is no end; so none is remembered."""
    app = application("/a/{x}")
    labels = Labels(tuple, path_budget=3)
    long = "/a/" + "x" * 2000
    for number in range(50):
        assert (await described(app, labels, long + str(number)))[1].endswith("…")
    (rule,) = labels._patterns.values()
    assert len(rule._admitted) == 1
    assert not rule._seen
