from __future__ import annotations

import asyncio
import gc
import logging
from functools import partial
from types import FunctionType, ModuleType
from urllib.parse import quote

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st

from hr_prometheus.labels.cache import LabelCache
from hr_prometheus.labels.policies import Policies


def labels_alone(labels, _route):
    """Make a record that is no more than its labels."""
    return labels


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
    """Return the labels of a request that the application has matched, as the middleware gets them."""
    request = make_mocked_request(method, path)
    match_info = await app.router.resolve(request)
    match_info.add_app(app)
    request._match_info = match_info
    return labels.lookup(request) or labels.record_of(request)


def size(labels) -> int:
    """Return the number of objects that a cache keeps."""
    seen, queue = {}, [labels]
    while queue:
        thing = queue.pop()
        if id(thing) not in seen and not isinstance(thing, FunctionType | ModuleType | type):
            seen[id(thing)] = thing
            queue += gc.get_referents(thing)
    return len(seen)


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
    """A fixed parameter appears as {name}; the others keep their value."""
    app = application(cell=CELL)
    assert await described(
        app, LabelCache(labels_alone, policies=Policies(fixed, {})), "/cell_neighbour/1948/direction/north"
    ) == ("GET", label)


async def test_routes_of_every_kind_have_their_label(tmp_path):
    """Plain, parametrised, static, nested and unmatched requests are labelled as documented."""
    app = application("/plain", "/café", r"/number/{id:\d+}", "/proxy/{tail:.*}")
    app.router.add_static("/static", tmp_path)
    app.router.add_route("*", "/any", handler)
    below = application("", "/users/{user}")
    app.add_subapp("/api", below)
    labels = LabelCache(labels_alone)
    for path, label in {
        "/plain": "/plain",
        "/caf%C3%A9": "/café",
        "/number/12": "/number/12",
        "/number/twelve": "unmatched",
        "/proxy/a": "/proxy/a",
        "/proxy/a/b": "/proxy/{tail}",
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
    assert await described(app, LabelCache(labels_alone), "/index.html") == ("GET", "/{filename}")


async def test_methods_outside_the_registry_are_unknown():
    """A client cannot make a series by inventing a method; the application can, by registering it."""
    app = web.Application()
    app.router.add_route("*", "/any", handler)
    app.router.add_route("FROBNICATE", "/own", handler)
    labels = LabelCache(labels_alone)
    assert await described(app, labels, "/any", "PROPFIND") == ("PROPFIND", "/any")
    assert await described(app, labels, "/any", "INVENTED") == ("unknown", "/any")
    assert await described(app, labels, "/any", "ANOTHER") == ("unknown", "/any")
    assert await described(app, labels, "/own", "FROBNICATE") == ("FROBNICATE", "/own")


@pytest.mark.parametrize("path", ["/view", "/view/{x}"])
@pytest.mark.parametrize("method", ["GET", "*"])
async def test_a_class_based_view_without_the_method(path, method):
    """Its 405 is unmatched, each time, also where the route is for that method alone."""

    class View(web.View):
        async def post(self):
            return web.Response()

    app = web.Application()
    app.router.add_route(method, path, View)
    labels = LabelCache(labels_alone)
    for _ in range(3):
        assert await described(app, labels, path.format(x=1)) == ("GET", "unmatched")


async def test_the_method_that_is_a_star():
    """A star is a token that a client may send, and no method that a route for all has registered."""
    app = web.Application()
    app.router.add_route("*", "/any", handler)
    labels = LabelCache(labels_alone)
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
    labels = LabelCache(labels_alone, policies=policies, path_budget=0)
    app = application(cell=CELL)
    for _ in range(2):
        assert await described(app, labels, path) == ("GET", label)


async def test_allowed_values_beside_kept_ones():
    """Labels with a value outside the list count against the budget; listed values stay as they are."""
    labels = LabelCache(labels_alone, policies=Policies({}, {"cell": {"direction": ["north"]}}), path_budget=1)
    app = application(cell=CELL)
    assert (await described(app, labels, "/cell_neighbour/1/direction/up"))[1] == "/cell_neighbour/1/direction/other"
    assert (await described(app, labels, "/cell_neighbour/1/direction/in"))[1] == "/cell_neighbour/1/direction/other"
    assert (await described(app, labels, "/cell_neighbour/2/direction/up"))[1] == CELL


async def test_applications_of_domains():
    """Applications added by domain are labelled by their own paths, however many Host headers there are."""
    app = web.Application()
    app.add_domain("*.example.org", application("/", "/users/{user}"))
    labels = LabelCache(labels_alone)
    for number in range(20):
        request = make_mocked_request("GET", "/", headers={"Host": f"{number}.example.org"})
        match_info = await app.router.resolve(request)
        match_info.add_app(app)
        request._match_info = match_info
        assert labels.record_of(request) == ("GET", "/", "host", "*.example.org")


async def test_a_spent_budget_folds_into_the_template(caplog):
    """Known labels go on, new values get the template, one warning names the route and the cure."""
    folded = []
    app = application(cell=CELL, other="/other/{id}")
    labels = LabelCache(labels_alone, path_budget=2, fold_counter=partial(partial, folded.append))
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
    assert "--path-budget (as a library: path_budget)" in warning.message


async def test_the_advice_for_a_route_without_a_name_can_be_pasted(caplog):
    """Its star is quoted for the shell."""
    app = application("/cell/{id}")
    await described(app, LabelCache(labels_alone, path_budget=0), "/cell/1")
    assert "--fixed-route '*=id' " in caplog.text


async def test_the_budget_is_one_for_all_methods_of_a_route():
    """POST and GET of one pattern share its labels, and so its budget."""
    app = web.Application()
    app.router.add_route("*", "/a/{x}", handler)
    labels = LabelCache(labels_alone, path_budget=1)
    assert await described(app, labels, "/a/1", "POST") == ("POST", "/a/1")
    assert await described(app, labels, "/a/1", "GET") == ("GET", "/a/1")
    assert await described(app, labels, "/a/2", "GET") == ("GET", "/a/{x}")


@pytest.mark.parametrize("methods", [["*"], ["GET", "POST"]])
@pytest.mark.parametrize("path", ["/a/1", "/a/100%25"])
async def test_a_label_keeps_its_place_when_the_budget_is_spent(methods, path):
    """A label with a place is that of each method, however many others were folded before."""
    app = web.Application()
    for method in methods:
        app.router.add_route(method, "/a/{x}", handler)
    labels = LabelCache(labels_alone, policies=Policies({}, {}, keep_values="all"), path_budget=1)
    for method in ("GET", "POST"):
        assert await described(app, labels, path, "GET") == ("GET", path.replace("%25", "%"))
        assert await described(app, labels, "/a/2", method) == (method, "/a/{x}")
        assert await described(app, labels, path, method) == (method, path.replace("%25", "%"))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.text("abc/%25é ", min_size=1, max_size=8), st.sampled_from("NS"))), st.integers(0, 5))
async def test_labels_are_bounded_whatever_is_asked_for(requests, budget):
    """There are at most budget + 1 labels a route, and once folded a value never leaks."""
    app = application(route="/r/{value}/{side}")
    labels = LabelCache(labels_alone, path_budget=budget)
    seen = set()
    for value, side in requests:
        label = (await described(app, labels, f"/r/{value}/{side}"))[1]
        if label == "unmatched":
            continue
        assert label in seen or len(seen - {"/r/{value}/{side}"}) < budget or label == "/r/{value}/{side}"
        seen.add(label)
    assert len(seen - {"/r/{value}/{side}"}) <= budget


RANDOM = "3f9c1e7a5b2d4f60"


def is_safe(value: str) -> bool:
    """Say by the manual's words whether a value may be kept."""
    digits = sum(each in "0123456789" for each in value)
    letters = sum(each.isascii() and each.isalpha() for each in value)
    others = sum(each in "-_.~" for each in value)
    is_mixed = letters and digits and len(value) >= 16
    return len(value) <= 32 and digits + letters + others == len(value) and digits < 9 and not is_mixed


@settings(max_examples=50)
@given(st.lists(st.tuples(*[st.text("abcXYZ0123456789-_.~@/%é ", min_size=1, max_size=40)] * 2)), st.integers(0, 5))
async def test_no_label_shows_what_may_be_secret(requests, budget):
    """A value that breaks the rule appears as {name}, beside the other value of its path if the budget allows."""
    app = application("/r/{value}/{side}")
    labels = LabelCache(labels_alone, path_budget=budget)
    seen = set()
    for values in requests:
        value, side = (quote(each, safe="") for each in values)
        label = (await described(app, labels, f"/r/{value}/{side}"))[1]
        parts = [each if is_safe(each) else name for each, name in zip(values, ("{value}", "{side}"), strict=True)]
        kept = "/r/" + "/".join(parts)
        assert label in (kept, "/r/{value}/{side}")
        seen.add(label)
        assert len(seen - {"/r/{value}/{side}"}) <= budget


@pytest.mark.parametrize(
    ("route", "path", "label"),
    [
        ("/reset-password/{token}", f"/reset-password/{RANDOM}", "/reset-password/{token}"),
        ("/reset-password/{token:[0-9a-f]+}", f"/reset-password/{RANDOM}", "/reset-password/{token}"),
        ("/u/{email}", "/u/ada@example.org", "/u/{email}"),
        ("/u/{email}", "/u/ada%40example.org", "/u/{email}"),
        ("/u/{email}", "/u/%61da", "/u/ada"),
        ("/u/{email}/posts/{page}", "/u/ada@example.org/posts/2", "/u/{email}/posts/2"),
        ("/u/{email}/posts/{page}", f"/u/ada/posts/{RANDOM}", "/u/ada/posts/{page}"),
        ("/u/{email}/posts/{page}", f"/u/ada@example.org/posts/{RANDOM}", "/u/{email}/posts/{page}"),
        ("/files/{tail:.*}", "/files/", "/files/"),
        ("/files/{tail:.*}", "/files/a.css", "/files/a.css"),
        ("/files/{tail:.*}", "/files/home/ada", "/files/{tail}"),
        (r"/v/{major:\d+}.{minor:\d+}", "/v/1.2", "/v/1.2"),
        (r"/v/{major:\d+}.{minor:\d+}", "/v/1.123456789", "/v/1.{minor}"),
    ],
)
async def test_values_that_may_be_secret_appear_by_name(route, path, label):
    """Of each kind of parameter, alone, beside another one, and in an application below."""
    app, below = application(route), application(route)
    app.add_subapp("/below", below)
    labels = LabelCache(labels_alone)
    for _ in range(2):
        assert await described(app, labels, path) == ("GET", label)
        assert await described(app, labels, "/below" + path) == ("GET", "/below" + label)


async def test_all_values_are_kept_on_request():
    """With keep_values="all" the label is the path, as published."""
    labels = LabelCache(labels_alone, policies=Policies({}, {}, "all"))
    app = application("/u/{email}", "/files/{tail:.*}")
    for path in ("/u/ada@example.org", f"/u/{RANDOM}", "/files/home/ada"):
        assert await described(app, labels, path) == ("GET", path)


async def test_lists_and_fixed_parameters_win_over_the_rule():
    """A value on a list is kept whatever it looks like, and a fixed one appears by name though it is safe."""
    policies = Policies({"mail": ["page"]}, {"mail": {"email": ["ada@example.org"]}, "*": {"token": [RANDOM]}})
    labels = LabelCache(labels_alone, policies=policies)
    app = application("/reset/{token}/{user}", mail="/u/{email}/{page}")
    assert await described(app, labels, "/u/ada@example.org/2") == ("GET", "/u/ada@example.org/{page}")
    assert await described(app, labels, "/u/bob@example.org/2") == ("GET", "/u/other/{page}")
    assert await described(app, labels, f"/reset/{RANDOM}/ada") == ("GET", f"/reset/{RANDOM}/ada")
    assert await described(app, labels, f"/reset/{RANDOM}/a@b") == ("GET", f"/reset/{RANDOM}/{{user}}")
    assert await described(app, labels, f"/reset/{RANDOM[1:]}0/ada") == ("GET", "/reset/other/ada")


@pytest.mark.parametrize("fixed", [{}, {"cell": ["cell_id"]}])
async def test_hidden_values_cost_nothing_of_the_budget_and_are_not_remembered(fixed):
    """A flood of tokens leaves no trace: not in memory, not in the budget, not among the folded requests."""
    folded = []
    labels = LabelCache(
        labels_alone, policies=Policies(fixed, {}), path_budget=2, fold_counter=partial(partial, folded.append)
    )
    app = application(cell=CELL)
    sizes = set()
    for number in range(200):
        path = f"/cell_neighbour/{number}{RANDOM}/direction/{number}{RANDOM}"
        assert await described(app, labels, path) == ("GET", CELL)
        sizes.add(size(labels))
    assert (len(sizes), folded) == (1, [])
    for way in ("north", "south", "east"):
        await described(app, labels, f"/cell_neighbour/1/direction/{way}")
    assert folded == [CELL]
    assert await described(app, labels, f"/cell_neighbour/{RANDOM}/direction/{RANDOM}") == ("GET", CELL)
    assert folded == [CELL]


async def test_what_is_made_for_a_template_is_made_once():
    """Hidden and folded requests of a route share what was made for its template."""
    made = []
    labels = LabelCache(lambda pair, _route: made.append(pair) or pair, path_budget=0)
    app = application("/a/{x}")
    for path in ("/a/a@b", "/a/1", f"/a/{RANDOM}", "/a/2"):
        await described(app, labels, path)
    assert made == [("GET", "/a/{x}")]


async def test_excluded_paths_have_no_labels():
    """A pattern leaves requests out by their path label, before they take from the budget."""
    app = application("/health", "/a/{x}")
    labels = LabelCache(labels_alone, exclude=["/health*", "/a/secret*", "unmatched"], path_budget=1)
    assert await described(app, labels, "/health") is None
    assert await described(app, labels, "/nothing") is None
    assert await described(app, labels, "/a/secret1") is None
    assert await described(app, labels, "/a/1") == ("GET", "/a/1")
    assert await described(app, labels, "/a/2") == ("GET", "/a/{x}")
    assert await described(app, labels, "/a/secret2") is None  # also when the budget is spent
    labels = LabelCache(labels_alone, exclude=["/a/{x}"], path_budget=0)
    assert await described(app, labels, "/a/1") is None  # it would be recorded under what is left out


async def test_methods_that_are_left_out():
    """Requests with them have no labels, whether a route matches or not; those with others have."""
    app = application("/a/{x}", "/b")
    labels = LabelCache(labels_alone, exclude_methods=["OPTIONS", "HEAD"])
    for path in ("/a/1", "/b", "/nothing"):
        assert await described(app, labels, path, "OPTIONS") is None
        assert await described(app, labels, path, "HEAD") is None
        assert await described(app, labels, path) == ("GET", "unmatched" if path == "/nothing" else path)


async def test_texts_that_are_recorded_as_another_are_not_kept():
    """There is no end of paths that share a label because it is cut or escaped, so none is remembered."""
    app = application("/a/{x}")
    labels = LabelCache(labels_alone, path_budget=3, policies=Policies({}, {}, "all"))
    long = "/a/" + "x" * 2000
    sizes = set()
    for number in range(50):
        assert (await described(app, labels, long + str(number)))[1].endswith("…")
        sizes.add(size(labels))
    assert len(sizes) == 1


async def test_many_values_for_one_label_are_not_all_remembered():
    """Escaped slashes can make one path of many values; requests get their label, and memory stays as it is."""
    app = application("/{a}/{b}/{c}")
    labels = LabelCache(labels_alone, path_budget=3, policies=Policies({"*": ["c"]}, {}, "all"))
    sizes = []
    for number in range(1, 40):
        path = "/" + "/".join(["x"] * number).replace("/", "%2F") + "/" + "%2F".join(["x"] * (40 - number))
        assert await described(app, labels, path + "/1") == ("GET", "/" + "/".join(["x"] * 40) + "/{c}")
        sizes.append(size(labels))
    assert len(set(sizes)) <= 5
    assert len(set(sizes[5:])) == 1


async def test_methods_without_end_are_not_remembered():
    """When the budget of a route for all methods is spent, nothing is kept of those that clients invent."""
    app = web.Application()
    app.router.add_route("*", "/any/{x}", handler)
    labels = LabelCache(labels_alone, path_budget=0)
    sizes = set()
    for number in range(50):
        assert await described(app, labels, "/any/1", f"INVENTED{number}") == ("unknown", "/any/{x}")
        assert await described(app, labels, f"/any/{number}", "GET") == ("GET", "/any/{x}")
        sizes.add(size(labels))
    assert len(sizes) == 1


def reports(**more) -> web.Application:
    """Make an application without routes for OPTIONS, with a sub-application and a domain."""
    app = web.Application(**more)
    app.router.add_put("/reports/{id}", handler)
    below = application("/cells/{cell_id}")
    app.add_subapp("/api", below)
    app.add_domain("a.example", application("/cells/{cell_id}"))
    return app


@pytest.mark.parametrize(
    ("path", "headers", "labels"),
    [
        ("/reports/1", {"Access-Control-Request-Method": "PUT"}, ("OPTIONS", "/reports/{id}")),
        ("/reports/1", {"Access-Control-Request-Method": "GET"}, ("OPTIONS", "unmatched")),
        ("/reports/1", {"Access-Control-Request-Method": '"?'}, ("OPTIONS", "unmatched")),
        ("/reports/1", {"Access-Control-Request-Method": ""}, ("OPTIONS", "unmatched")),
        ("/reports/1", {}, ("OPTIONS", "unmatched")),
        ("/none", {"Access-Control-Request-Method": "PUT"}, ("OPTIONS", "unmatched")),
        ("/api/cells/1", {"Access-Control-Request-Method": "GET"}, ("OPTIONS", "/api/cells/{cell_id}")),
        (
            "/cells/1",
            {"Access-Control-Request-Method": "GET", "Host": "a.example"},
            ("OPTIONS", "/cells/{cell_id}", "host", "a.example"),
        ),
    ],
)
async def test_a_preflight_has_the_template_of_what_it_asks_about(path, headers, labels):
    """A preflight to a route without OPTIONS has the label of the route for the method it announces, never a value."""
    app = reports()
    cache = LabelCache(labels_alone)
    for _ in range(2):
        request = make_mocked_request("OPTIONS", path, headers=headers)
        request._match_info = await app.router.resolve(request)
        request._match_info.add_app(app)
        assert cache.record_of(request) == labels


async def test_preflights_make_no_more_labels_than_there_are_routes():
    """However many paths and methods clients ask about."""
    app = reports()
    labels = LabelCache(labels_alone)
    answers, sizes = set(), set()
    for number in range(50):
        for method in ("PUT", "GET", f"M{number}"):
            headers = {"Access-Control-Request-Method": method}
            request = make_mocked_request("OPTIONS", f"/reports/{number}", headers=headers)
            request._match_info = await app.router.resolve(request)
            request._match_info.add_app(app)
            answers.add(labels.record_of(request))
        sizes.add(size(labels))
    assert answers == {("OPTIONS", "/reports/{id}"), ("OPTIONS", "unmatched")}
    assert len(sizes) == 1


class Waiting(web.AbstractResource):
    """A resource that waits for an answer, or fails."""

    def __init__(self, error=None):
        super().__init__()
        self.error = error

    canonical = "/reports"

    def __len__(self):
        return 0

    def __iter__(self):
        return iter(())

    def url_for(self, **_parts):
        raise NotImplementedError

    def add_prefix(self, prefix):
        raise NotImplementedError

    def get_info(self):
        return {}

    def raw_match(self, _path):
        return False

    async def resolve(self, request):
        if request.method != "OPTIONS":
            if self.error:
                raise self.error
            await asyncio.sleep(0)
        return None, {"PUT"}


@pytest.mark.parametrize("error", [None, RuntimeError("not now")])
async def test_a_preflight_to_a_resource_of_the_applications_own(error):
    """One that cannot say at once what matches, or fails, leaves the request unmatched."""
    app = web.Application()
    app.router.register_resource(Waiting(error))
    request = make_mocked_request("OPTIONS", "/reports", headers={"Access-Control-Request-Method": "PUT"})
    request._match_info = await app.router.resolve(request)
    request._match_info.add_app(app)
    assert LabelCache(labels_alone).record_of(request) == ("OPTIONS", "unmatched")


async def test_a_preflight_without_an_application():
    """A unit test may hand the middleware a match that no application has."""
    app = reports()
    request = make_mocked_request("OPTIONS", "/reports/1", headers={"Access-Control-Request-Method": "PUT"})
    request._match_info = await app.router.resolve(request)
    assert LabelCache(labels_alone).record_of(request) == ("OPTIONS", "unmatched")
