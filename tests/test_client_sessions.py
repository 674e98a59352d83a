"""The client sessions that the command measures: those that an application keeps, or all."""

from __future__ import annotations

import logging
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from aiohttp import ClientSession, TraceConfig, web
from conftest import samples
from prometheus_client import REGISTRY, generate_latest

from hr_prometheus import client_trace_config
from hr_prometheus.client.sessions import kept_sessions, measure_new_sessions, measure_session
from hr_prometheus.server.client_sessions import measure_all, measure_kept
from hr_prometheus.settings import Settings


class Service:
    """What an application may keep a session in."""

    def __init__(self, session):
        self._session, self.others = session, "a session"


@pytest.fixture
async def url(aiohttp_server):
    return (await aiohttp_server(web.Application())).make_url("/")


def requests(registry) -> float:
    """Return the number of requests that were counted."""
    lines = samples(generate_latest(registry).decode()).items()
    return sum(value for key, value in lines if key.startswith("client_request_count_total"))


async def test_kept_sessions_are_found_wherever_an_application_keeps_them():
    """Under its keys and those of sub-applications, in lists and objects; once each, and none that is closed."""
    async with ClientSession() as one, ClientSession() as two, ClientSession() as three, ClientSession() as four:
        app, below, deepest = web.Application(), web.Application(), web.Application()
        app[web.AppKey("ONE", ClientSession)] = one
        app["closed"] = closed = ClientSession()
        await closed.close()
        app["again"], app["name"] = {"one": one}, "a session"
        below["service"] = Service(two)
        deepest["several"] = [three, None, four]
        below.add_subapp("/deepest", deepest)
        app.add_subapp("/below", below)
        assert kept_sessions(app) == [one, two, three, four]
        assert kept_sessions(web.Application()) == []


class Slots:
    """What keeps a session in a slot, and has one that is empty."""

    __slots__ = ("__session", "others")

    def __init__(self, session):
        self.__session = session


class MoreSlots(Slots):
    """What inherits it."""

    __slots__ = ()


@dataclass(slots=True)
class Data:
    """A class whose decorator makes the slots."""

    session: ClientSession


class Named(NamedTuple):
    """A tuple with names."""

    session: ClientSession


class OddList(list):
    """A list whose members are not to be asked for."""

    def __iter__(self):
        raise ArithmeticError


def _with_attribute(container, session):
    container.session = session
    return container


@pytest.mark.parametrize(
    "keep",
    [
        Service, Slots, MoreSlots, Data, Named, lambda each: SimpleNamespace(session=each), lambda each: {"one": each},
        lambda each: [each], lambda each: (each,), lambda each: {each}, lambda each: frozenset([each]),
        lambda each: defaultdict(list, one=each), lambda each: OrderedDict(one=each), lambda each: OddList([each]),
        lambda each: _with_attribute(OddList(), each),
    ],
)  # fmt: skip
async def test_a_kept_session_is_found_in_any_object(keep):
    """With or without slots, and in any container."""
    async with ClientSession() as session:
        app = web.Application()
        app["keeper"] = keep(session)
        assert kept_sessions(app) == [session]


async def test_a_session_is_measured_once(url, registry):
    """A session with a configuration of ours keeps that alone; new sessions have it from the start, and only in the block."""
    config = client_trace_config(registry=registry)
    with measure_new_sessions(lambda: config):
        for options in ({}, {"trace_configs": None}, {"trace_configs": [client_trace_config(registry=registry)]}):
            async with ClientSession(**options) as session:
                measure_session(session, config)
                await session.get(url)
                await session.get(url)
    assert requests(registry) == 6
    async with ClientSession() as session:
        await session.get(url)
    assert requests(registry) == 6


async def test_the_command_says_how_many_sessions_are_measured(url, caplog):
    """It finds them after the start-up; without any it says what to do."""
    caplog.set_level(logging.INFO)
    settings = Settings(target="x", client_metrics="kept")
    app = web.Application()
    notice = measure_kept(app, settings)
    assert "the application keeps no ClientSession under its keys after its start-up" in notice
    assert "--client-metrics=all" in notice
    with measure_all(settings):
        async with ClientSession() as app["one"], ClientSession() as app["two"]:
            assert not app["one"].trace_configs
            assert measure_kept(app, settings) is None
            before = requests(REGISTRY)
            await app["one"].get(url)
            assert requests(REGISTRY) == before + 1
    messages = [record.message for record in caplog.records if record.name == "hr_prometheus"]
    assert messages == ["--client-metrics: 2 client sessions are measured."]


async def test_the_number_is_a_notice_where_no_logging_is_set_up(monkeypatch):
    """A script may have none; a notice is shown all the same."""
    monkeypatch.setattr(logging.getLogger("hr_prometheus"), "propagate", False)
    async with ClientSession() as session:
        app = web.Application()
        app["session"] = session
        notice = measure_kept(app, Settings(target="x", client_metrics="kept"))
    assert notice == "--client-metrics: 1 client session is measured."


async def test_the_command_can_measure_all(url):
    """Sessions that the application keeps nowhere are measured, too."""
    before = requests(REGISTRY)
    with measure_all(Settings(target="x", client_metrics="all")):
        async with ClientSession() as session:
            await session.get(url)
    assert requests(REGISTRY) == before + 1


@pytest.mark.parametrize("given", [(), [], (TraceConfig(),), [TraceConfig()]], ids=["empty", "none", "tuple", "list"])
async def test_a_new_session_takes_any_trace_configs(url, registry, given):
    """Several sessions may have the same; each request is recorded once."""
    size = len(given)
    config = client_trace_config(registry=registry)
    with measure_new_sessions(lambda: config):
        for _ in range(2):
            async with ClientSession(trace_configs=given) as session:
                await session.get(url)
                assert len(session.trace_configs) == size + 1
    assert requests(registry) == 2


async def test_a_list_of_trace_configs_stays_the_sessions(url, registry):
    """What the application adds to it later is asked, as without us."""
    seen = []

    async def see(*_signal):
        seen.append(1)

    added = TraceConfig()
    added.on_request_start.append(see)
    added.freeze()
    given = [TraceConfig()]
    config = client_trace_config(registry=registry)
    with measure_new_sessions(lambda: config):
        async with ClientSession(trace_configs=given) as session:
            given.append(added)
            await session.get(url)
    assert seen == [1]
    assert requests(registry) == 1


@pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning")
async def test_the_error_for_wrong_trace_configs_is_aiohttps(registry):
    """It names what the application did."""
    config = client_trace_config(registry=registry)
    with measure_new_sessions(lambda: config), pytest.raises(TypeError, match="not iterable"):
        ClientSession(trace_configs=1)


class Odd:
    """What raises when it is looked at."""

    @property
    def __dict__(self):
        raise ArithmeticError

    @property
    def __class__(self):
        raise ArithmeticError


async def test_what_cannot_be_measured_is_left_out(url, caplog):
    """An application whose session has a tuple of configurations starts, and so does one that keeps an odd object."""
    caplog.set_level(logging.INFO)
    app = web.Application()
    configs = [TraceConfig()]
    app["odd"], app["odds"] = Odd(), [Odd()]
    async with (
        ClientSession(trace_configs=(TraceConfig(),)) as app["tuple"],
        ClientSession(trace_configs=configs) as app["one"],
        ClientSession(trace_configs=configs) as app["two"],
    ):
        assert measure_kept(app, Settings(target="x", client_metrics="kept")) is None
        before = requests(REGISTRY)
        for name in ("tuple", "one", "two"):
            await app[name].get(url)
        assert requests(REGISTRY) == before + 2
    counted, left_out = [record.message for record in caplog.records if record.name == "hr_prometheus"]
    assert counted == "--client-metrics: 2 client sessions are measured."
    assert left_out.startswith("--client-metrics: 1 client session is not measured: the trace_configs are not a list")
