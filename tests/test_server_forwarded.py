"""Clients behind proxies, as the access log shows them."""

from __future__ import annotations

import asyncio
import logging

import pytest
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.test_utils import make_mocked_request
from aiohttp.web_log import AccessLogger
from conftest import CHARACTERS
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from hr_prometheus.server.forwarded import TrustedPeers, log_clients
from hr_prometheus.written_forms import parse_trusted_peers

PEERS = "10.0.0.0/8,2001:db8::/32,unix"


def request_from(peer: str, *forwarded: str, proto: tuple[str, ...] = ()) -> web.Request:
    """Return a request from a peer, with these headers."""
    headers = CIMultiDict([("X-Forwarded-For", each) for each in forwarded])
    headers.extend([("X-Forwarded-Proto", each) for each in proto])
    return make_mocked_request("GET", "/", headers=headers).clone(remote=peer)


def client_of(request: web.Request, peers: str = PEERS) -> tuple[str | None, str]:
    """Return the address and the scheme that the access log shows."""
    view = TrustedPeers(parse_trusted_peers([peers])).view(request)
    return view.remote, view.scheme


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.7,10.0.0.2 , 10.0.0.3"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.7", "10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.7:5678"], "203.0.113.7"),
        ("10.0.0.1", ["[::1]:80"], "::1"),
        ("10.0.0.1", ["[::1]"], "::1"),
        ("10.0.0.1", ["FE80::1%eth0, [2001:DB8::2]:1"], "fe80::1"),
        ("10.0.0.1", ["::ffff:203.0.113.7, ::ffff:10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7,, ,\t,", "", " "], "203.0.113.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["", ","], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7, _hidden, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.7, [10.0.0.2"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7:http"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7 GET / 200"], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("2001:db8::1%3", ["203.0.113.7"], "203.0.113.7"),
        ("", ["203.0.113.7"], "203.0.113.7"),
        ("/run/client.sock", ["203.0.113.7"], "203.0.113.7"),
        ("203.0.113.1", ["203.0.113.7"], "203.0.113.1"),
        ("fe80::1%3", ["203.0.113.7"], "fe80::1%3"),
    ],
)
def test_the_client(peer, forwarded, client):
    """It is the first address from the right that is not trusted, of peers that are."""
    assert client_of(request_from(peer, *forwarded)) == (client, "http")


@pytest.mark.parametrize(
    ("peers", "peer", "client"),
    [
        ("*", "203.0.113.1", "1.1.1.1"),
        ("*", "", "1.1.1.1"),
        ("unix", "", "2.2.2.2"),
        ("unix", "10.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "", ""),
        ("10.0.0.1, 2.2.2.2", "10.0.0.1", "1.1.1.1"),
        ("::ffff:10.0.0.0/104", "10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.0/104", "::ffff:10.0.0.1", "2.2.2.2"),
    ],
)
def test_who_is_trusted(peers, peer, client):
    """Addresses, networks, the peers of Unix sockets, or all; then the client is the first of all addresses."""
    assert client_of(request_from(peer, "1.1.1.1, 2.2.2.2"), peers) == (client, "http")


def test_a_connection_that_was_lost_before():
    """It has no peer, so that none is trusted."""
    request = make_mocked_request("GET", "/", headers={"X-Forwarded-For": "1.1.1.1"})
    request._transport_peername = None
    assert client_of(request, "*") == (None, "http")


@pytest.mark.parametrize(
    ("forwarded", "proto", "scheme"),
    [
        (["1.1.1.1"], ["https"], "https"),
        (["1.1.1.1"], ["HTTPS"], "https"),
        (["1.1.1.1"], ["wss"], "https"),
        ([], ["https"], "https"),
        (["1.1.1.1"], [], "http"),
        (["1.1.1.1"], ["", ","], "http"),
        (["1.1.1.1"], ["gopher"], "http"),
        (["evil, 1.1.1.1"], ["https, http"], "http"),
        (["1.1.1.1, 10.0.0.2"], ["https, http"], "https"),
        (["1.1.1.1, 10.0.0.2"], ["https", "http"], "https"),
        (["1.1.1.1, 10.0.0.2, 10.0.0.3"], ["https"], "https"),
        (["unknown"], ["http, https"], "https"),
    ],
)
def test_the_scheme(forwarded, proto, scheme):
    """It is the one with which the client has asked the proxy that names it; what is no scheme is passed over."""
    assert client_of(request_from("10.0.0.1", *forwarded, proto=tuple(proto)))[1] == scheme
    assert client_of(request_from("203.0.113.1", *forwarded, proto=tuple(proto)))[1] == "http"


def test_many_entries_are_not_all_read():
    """A client that sends 10,000 addresses of proxies cannot make the log slow: only the last hundred are looked at."""
    many = [f"10.0.{number // 256}.{number % 256}" for number in range(10_000)]
    assert client_of(request_from("10.0.0.1", ",".join(many))) == (many[-100], "http")
    assert client_of(request_from("10.0.0.1", *many)) == (many[-100], "http")
    assert client_of(request_from("10.0.0.1", "1.1.1.1" + "," * 10_000)) == ("10.0.0.1", "http")


TEXTS = (
    st.text(CHARACTERS, max_size=30)
    | st.from_regex(r"[0-9a-f.:\[\],% /]{0,40}", alphabet=CHARACTERS)
    | st.ip_addresses().map(str)
)


@given(peer=TEXTS, forwarded=st.lists(TEXTS, max_size=5), proto=st.lists(TEXTS | st.just("https"), max_size=3))
def test_whatever_is_sent(peer, forwarded, proto):
    """It raises nothing, and shows an address that can be read or that of the peer."""
    for peers in ("10.0.0.0/8", "*"):
        client, scheme = client_of(request_from(peer, *forwarded, proto=tuple(proto)), peers)
        assert client == peer or set(client) <= set("0123456789abcdef.:")
        assert scheme in {"http", "https"}


def logged(base, request, log_format: str = "%a") -> None:
    """Log a request with a class, as aiohttp does it."""
    logger = log_clients(base, TrustedPeers(["*"]))(logging.getLogger("access"), log_format)
    assert logger.enabled == base(logging.getLogger("access"), log_format).enabled
    logger.log(request, web.Response(text="x"), 0.1)


def test_aiohttp_logs_the_client(caplog):
    """Whatever has been read of the request, with which aiohttp cannot clone it."""
    caplog.set_level("INFO", "access")
    request = request_from("10.0.0.1", "203.0.113.7")
    request._read_bytes = b"x"
    logged(AccessLogger, request, '%a "%r" %{X-Forwarded-For}i')
    assert caplog.messages == ['203.0.113.7 "GET / HTTP/1.1" 203.0.113.7']


async def test_what_the_parser_refuses(caplog):
    """It is logged as well, with the address of the peer, although it has no headers."""
    caplog.set_level("INFO", "aiohttp.access")
    log_class = log_clients(AccessLogger, TrustedPeers(["*"]))
    runner = web.AppRunner(web.Application(), access_log_class=log_class, access_log_format="%a %s")
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        reader, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(b"garbage\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
        writer.close()
    finally:
        await runner.cleanup()
    assert [record.getMessage() for record in caplog.records if record.name == "aiohttp.access"] == ["127.0.0.1 400"]


def test_a_class_of_ones_own_has_all_of_the_request():
    """What a program can do with a request it can do with the one that its access log gets; the request itself is unchanged."""
    request = request_from("10.0.0.1", "203.0.113.7", proto=("https",))
    request["user"] = "ada"
    seen = []

    class Own(AbstractAccessLogger):
        def log(self, request, _response, _time):
            seen.append((request.remote, request.scheme, request.method, request.headers["X-Forwarded-Proto"]))
            assert isinstance(request, web.Request)
            assert request
            assert request["user"] == request.get("user") == dict(request)["user"] == "ada"
            assert "other" not in request
            assert len(request) == len(list(request)) == 1
            request["logged"] = True
            assert {request: 1}[request] == 1
            assert repr(request) == "<Request GET / >"
            assert not hasattr(request, "no_such_thing")

    logged(Own, request)
    assert seen == [("203.0.113.7", "https", "GET", "https")]
    assert (request.remote, request.scheme, request["logged"]) == ("10.0.0.1", "http", True)
    del request["logged"]


def test_a_logger_that_is_off():
    """It stays off, so that nothing is looked at for it."""

    class Off(AbstractAccessLogger):
        enabled = False

        def log(self, _request, _response, _time):
            raise AssertionError

    assert not log_clients(Off, TrustedPeers(["*"]))(logging.getLogger("access"), "").enabled
