from __future__ import annotations

import logging

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from hr_prometheus.labels import Labels
from hr_prometheus.policies import Policies


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
    assert await described(
        app, Labels(tuple, policies=Policies(fixed, {})), "/cell_neighbour/1948/direction/north"
    ) == ("GET", label)


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


async def test_the_method_that_is_a_star():
    """A star is a token that a client may send, and no method that a route for all has registered."""
    app = web.Application()
    app.router.add_route("*", "/any", handler)
    labels = Labels(tuple)
    assert await described(app, labels, "/any", "*") == ("unknown", "/any")
    assert await described(app, labels, "/any", "GET") == ("GET", "/any")


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/cell_neighbour/1948/direction/north", "/cell_neighbour/{cell_id}/direction/north"),
        ("/cell_neighbour/874/direction/south", "/cell_neighbour/{cell_id}/direction/south"),
        ("/cell_neighbour/874/direction/up", "/cell_neighbour/{cell_id}/direction/other"),
    ],
)
@pytest.mark.parametrize(
    "policies",
    [
        Policies({"cell": ["cell_id"]}, {"cell": {"direction": ["north", "south"]}}),
        Policies({"*": ["*"]}, {"cell": {"direction": ["north", "south"]}}),
        Policies({"cell": ["*"]}, {"*": {"direction": ["north", "south"]}}),
    ],
)
async def test_allowed_values_are_kept_and_others_are_other(path, label, policies):
    """A list of values wins over a star, and needs no budget."""
    labels = Labels(tuple, policies=policies, path_budget=0)
    app = application(cell=CELL)
    for _ in range(2):
        assert await described(app, labels, path) == ("GET", label)


async def test_allowed_values_beside_kept_ones():
    """What is not listed counts against the budget, with the listed values as they are."""
    labels = Labels(tuple, policies=Policies({}, {"cell": {"direction": ["north"]}}), path_budget=1)
    app = application(cell=CELL)
    assert (await described(app, labels, "/cell_neighbour/1/direction/up"))[1] == "/cell_neighbour/1/direction/other"
    assert (await described(app, labels, "/cell_neighbour/1/direction/in"))[1] == "/cell_neighbour/1/direction/other"
    assert (await described(app, labels, "/cell_neighbour/2/direction/up"))[1] == CELL


async def test_applications_of_domains():
    """Applications added by domain are labelled by their own paths, however many Host headers there are."""
    app = web.Application()
    app.add_domain("*.example.org", application("/", "/users/{user}"))
    labels = Labels(tuple)
    for number in range(20):
        request = make_mocked_request("GET", "/", headers={"Host": f"{number}.example.org"})
        match_info = await app.router.resolve(request)
        match_info.add_app(app)
        request._match_info = match_info
        assert labels.find(request) == ("GET", "/")


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
    labels = Labels(tuple, exclude=["/a/{x}"], path_budget=0)
    assert await described(app, labels, "/a/1") is None  # it would be recorded under what is left out


async def test_texts_that_are_recorded_as_another_are_not_kept():
    """Of the paths that share a label, because it is cut or escaped, there is no end; so none is remembered."""
    app = application("/a/{x}")
    labels = Labels(tuple, path_budget=3)
    long = "/a/" + "x" * 2000
    for number in range(50):
        assert (await described(app, labels, long + str(number)))[1].endswith("…")
    (rule,) = labels._patterns.values()
    assert len(rule._admitted) == 1
    assert not any(rule._known.values())


async def test_many_values_for_one_label_are_not_all_remembered():
    """Escaped slashes can make one path of many values; requests get their label, and memory stays as it is."""
    app = application("/{a}/{b}")
    labels = Labels(tuple, path_budget=3, policies=Policies({}, {}))
    for number in range(1, 40):
        path = "/" + "/".join(["x"] * number).replace("/", "%2F") + "/" + "%2F".join(["x"] * (40 - number))
        assert await described(app, labels, path) == ("GET", "/" + "/".join(["x"] * 40))
    (rule,) = labels._patterns.values()
    assert len(rule.known("GET")) <= 4


async def test_methods_without_end_are_not_remembered():
    """When the budget of a route for all methods is spent, nothing is kept of those that clients invent."""
    app = web.Application()
    app.router.add_route("*", "/any/{x}", handler)
    labels = Labels(tuple, path_budget=0)
    for number in range(50):
        assert await described(app, labels, "/any/1", f"INVENTED{number}") == ("unknown", "/any/{x}")
        assert await described(app, labels, f"/any/{number}", "GET") == ("GET", "/any/{x}")
    assert sum(map(len, labels._folding.values())) == 1
