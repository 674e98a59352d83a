from __future__ import annotations

import inspect
import sys

import pytest
from aiohttp import web
from conftest import CHARACTERS
from hypothesis import given
from hypothesis import strategies as st

from hr_prometheus.labels.resources import (
    all_resources,
    domains,
    has_start_up,
    may_match,
    may_overlap,
    path_with_fixed_parameters,
    template,
    valid_text,
)


def test_the_text_between_parameters_is_decoded():
    """The constant text of a route is written as in a concrete path, though aiohttp keeps it percent-encoded."""
    resource = web.Application().router.add_resource("/café/{cell_id}/{direction}")
    values = {"cell_id": "1", "direction": "n e"}
    assert path_with_fixed_parameters(resource, values, {"cell_id"}) == "/café/{cell_id}/n e"
    assert template(resource) == "/café/{cell_id}/{direction}"


def test_text_that_utf8_cannot_encode_is_escaped():
    """A raw byte from the pure-Python parser becomes its percent-escape; other text is left as it is."""
    assert valid_text("/caf\udce9/é") == "/caf%E9/é"
    assert valid_text("\ud800") == "\N{REPLACEMENT CHARACTER}"
    assert valid_text('/"\\\n') == '/"\\\n'


def test_long_labels_are_cut():
    """A path of eight kilobytes is not carried through every scrape; the cut is marked."""
    assert valid_text("/" + "x" * 999) == "/" + "x" * 999
    assert valid_text("/" + "x" * 8000) == "/" + "x" * 998 + "…"


@given(st.text(CHARACTERS))
def test_labels_are_always_text(text):
    """Whatever a path decodes to, its label can be encoded, and does not change when it is made again."""
    label = valid_text(text)
    assert label.encode().decode() == label
    assert valid_text(label) == label
    assert len(label) <= 1000


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("/a/{x}", "north", True),
        ("/a/{x}", "no/rth", True),  # as no%2Frth
        (r"/a/{x:[a-z]+}", "no/rth", False),
        (r"/a/{x:\w+(?=-)}{rest}", "ab", True),  # in doubt
        (r"/a/{y}/{x:(?P=y)}", "ab", True),
        (r"/a/{x:\d+}/{y}", "12", True),
        (r"/a/{x:\d+}/{y}", "twelve", False),
        (r"/a/{x:(one|two)(?:\)|[)]|)}/b", "one)", True),
        (r"/a/{x:(one|two)(?:\)|[)]|)}/b", "three", False),
        ("/proxy/{x:.*}", "a/b", True),
    ],
)
def test_what_a_parameter_may_match(path, value, expected):
    """The pattern of one parameter is cut out of that of the route, whatever parentheses it has."""
    assert may_match(web.Application().router.add_resource(path), "x", value) is expected


@pytest.mark.parametrize(
    ("pattern", "form", "expected"),
    [
        ("/health*", "/health", True),
        ("/heath", "/health", False),
        ("/healt?", "/health", True),
        ("/[ah]ealth", "/health", True),
        ("/[!h]ealth", "/health", False),
        ("*", "/a/%s", True),
        ("/a/secret*", "/a/%s", True),
        ("/b/secret*", "/a/%s", False),
        ("/a/1/side/north", "/a/%s/side/%s", True),
        ("/a/1/sides", "/a/%s/side/%s", False),
        ("/a/{x}", "/a/{x}", True),
        ("/100%", "/100%%", True),
        ("", "/", False),
    ],
)
def test_whether_a_pattern_may_match_a_path(pattern, form, expected):
    """The values of parameters may be any text; the rest of a path is constant."""
    assert may_overlap(pattern, form) is expected


async def answer(_request: web.Request) -> web.Response:
    return web.Response()


def test_applications_may_be_nested_deeply():
    """The walks over routes need no more calls within calls for more levels."""
    depth = 400
    app = leaf = web.Application()
    app.router.add_get("/{value}", answer)
    for _ in range(depth):
        outer = web.Application()
        outer.add_subapp("/a", app)
        app = outer
    outermost = web.Application()
    outermost.add_domain("a.example", app)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + depth // 2)
    try:
        assert [each.canonical for each in all_resources(outermost)] == ["/a" * depth + "/{value}"]
        assert domains(outermost)[leaf] == "a.example"
        assert not has_start_up(outermost)
    finally:
        sys.setrecursionlimit(limit)
