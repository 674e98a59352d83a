from __future__ import annotations

import logging
from unittest import mock

import pytest
from aiohttp.web_log import AccessLogger

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.written_forms import (
    available_processors,
    parse_access_log_format,
    parse_allowed_values,
    parse_buckets,
    parse_fixed_routes,
    parse_latencies,
    parse_trace_url,
    parse_trusted_peers,
    parse_workers,
)


@pytest.mark.parametrize(
    ("texts", "fixed"),
    [
        ([], {}),
        (["cell=id"], {"cell": {"id"}}),
        (["cell=id,side", "other=*"], {"cell": {"id", "side"}, "other": {"*"}}),
        (["cell=id", "cell=side"], {"cell": {"id", "side"}}),
        (["*"], {"*": {"*"}}),
        (["*=id"], {"*": {"id"}}),
        (["cell= id , side "], {"cell": {"id", "side"}}),
    ],
)
def test_fixed_routes(texts, fixed):
    """Every written form of --fixed-route is read; a repeated name adds up."""
    assert parse_fixed_routes(texts) == fixed


@pytest.mark.parametrize("text", ["cell", "cell=", "=id", "", "cell=id,,side", "**"])
def test_invalid_fixed_routes(text):
    """Anything else is quoted, with what was expected."""
    with pytest.raises(ConfigurationError, match="is not understood. Expected NAME=PARAM") as caught:
        parse_fixed_routes([text])
    assert f'"{text}"' in str(caught.value)


def test_buckets():
    """Numbers separated by commas, in seconds."""
    assert parse_buckets(["0.05, 1,2.5", "report=30,60"]) == {"*": (0.05, 1.0, 2.5), "report": (30.0, 60.0)}


@pytest.mark.parametrize("text", ["fast", "report=", "=1,2", "report=fast", "1 2", ""])
def test_unreadable_buckets(text):
    """The error quotes the value and says what was expected."""
    with pytest.raises(ConfigurationError, match="is not understood. Expected upper bounds") as caught:
        parse_buckets([text])
    assert f'--buckets "{text}"' in str(caught.value)


@pytest.mark.parametrize("text", ["1,2", "report=1,2"])
def test_two_buckets_for_the_same_routes(text):
    """It is not guessed which of them is meant."""
    with pytest.raises(ConfigurationError, match="there are others for the same routes"):
        parse_buckets([text, text])


def test_allowed_values():
    """NAME.PARAM=VALUE[,VALUE…]; names may have dots, and a repeated parameter adds up."""
    assert parse_allowed_values(["api.cell.side=north,south", "api.cell.side=east"]) == {
        "api.cell": {"side": {"north", "south", "east"}}
    }


@pytest.mark.parametrize(
    "text", ["cell", "cell=north", "cell.side", "cell.side=", ".side=north", "cell.=x", "c.s=a,,b"]
)
def test_invalid_allowed_values(text):
    """Anything else is quoted, with what was expected."""
    with pytest.raises(ConfigurationError, match="is not understood. Expected NAME.PARAM=VALUE"):
        parse_allowed_values([text])


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("256", 256)])
def test_a_number_of_workers(text, number):
    """As it was written."""
    assert parse_workers(text) == number


def test_as_many_workers_as_processors():
    """Never none."""
    assert 1 <= parse_workers("auto") <= 256


@pytest.mark.parametrize("text", ["0", "257", "-1", "1.5", "", "four"])
def test_an_invalid_number_of_workers(text):
    """The sentence says what is expected."""
    with pytest.raises(ConfigurationError, match="Expected a number from 1 to 256, or auto"):
        parse_workers(text)


@pytest.mark.parametrize(
    ("quota", "most"), [("150000 100000", 1), ("50000 100000", 1), ("100000000 100000", 1000), ("max 100000", 1000)]
)
def test_a_containers_quota_counts(tmp_path, quota, most):
    """Processors beyond a container's quota do not count; a part of one counts as one."""
    everything = available_processors(str(tmp_path / "none"))
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert available_processors(str(tmp_path / "cpu.max")) == min(most, everything)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [(["0.5"], {"*": 0.5}), (["0.5", "report=30"], {"*": 0.5, "report": 30.0}), ([], {})],
)
def test_written_latencies(texts, expected):
    """Seconds of all routes, and of routes by name."""
    assert parse_latencies(texts) == expected


@pytest.mark.parametrize("text", ["0", "-1", "soon", "0.5s", "=1", "report=", "nan", "inf", "report=fast"])
def test_unreadable_latencies(text):
    """The error quotes what was typed."""
    with pytest.raises(ConfigurationError, match=f'--latency "{text}" is not understood'):
        parse_latencies([text])
    with pytest.raises(ConfigurationError, match="there is another one"):
        parse_latencies(["report=1", "report=2"])


FIELDS = "%a %t %r %s %b %T %Tf %D %P %{Referer}i %{X-Own_1}i %{Content-Type}o"


@pytest.mark.parametrize(
    "text", [*FIELDS.split(), FIELDS, AccessLogger.LOG_FORMAT, '{"code": %s, "time": %Tf}', "%a%s\t€"]
)
def test_formats_of_the_access_log(caplog, text):
    """A format that is accepted is one that aiohttp can write, field by field."""
    assert parse_access_log_format(text) == text
    caplog.set_level("INFO", "access")
    request = mock.Mock(remote="127.0.0.1", method="GET", path_qs="/", headers={})
    AccessLogger(logging.getLogger("access"), text).log(
        request, mock.Mock(status=204, body_length=7, headers={"Content-Type": "text/plain"}), 0.25
    )
    (record,) = caplog.records
    assert "%" not in record.message
    assert record.levelname == "INFO"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("%Q", '"%Q" is not a field'),
        ("%a %O", '"%O" is not a field'),  # aiohttp fails when a client connects
        ("%{PATH}e", '"%{PATH}e" is not a field'),  # likewise
        ("%a %", '"%" is not a field'),  # aiohttp fails at each request
        ("%%", '"%%" is not a field'),  # likewise
        ("%%a", '"%" is not a field'),
        ("100% %a", '"%" is not a field'),
        ("%(h)s %(r)s", '"%(h)s" is not a field'),
        ("%{Two words}i", '"%{Two words}i" is not a field'),
        ("%{}i", '"%{}i" is not a field'),
        ("%{X", '"%{X" is not a field'),
        ("combined", "each line would be the same"),
        ("", "each line would be the same"),
    ],
)
def test_formats_of_the_access_log_that_cannot_be_written(text, wrong):
    """What is no field is quoted, before there is any request."""
    with pytest.raises(ConfigurationError) as caught:
        parse_access_log_format(text)
    assert str(caught.value).startswith(f'--access-log-format "{text}": {wrong}. Expected aiohttp\'s fields')


def test_trusted_peers():
    """Addresses, networks and two words, separated by commas, in any number of texts."""
    assert parse_trusted_peers(["127.0.0.1, ::1", "10.0.0.0/8", "unix,*"]) == (
        "127.0.0.1/32", "::1/128", "10.0.0.0/8", "unix", "*",
    )  # fmt: skip
    assert parse_trusted_peers([]) == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("proxy", '"proxy" is not understood. Expected addresses, networks'),
        ("10.0.0.1,,unix", '"" is not understood'),
        ("", '"" is not understood'),
        ("10.0.0.1:80", '"10.0.0.1:80" is not understood'),
        ("::1,10.0.0.1/8", '"10.0.0.1/8" is one address of a network. Did you mean "10.0.0.0/8"?'),
    ],
)
def test_unreadable_trusted_peers(text, problem):
    """The error quotes the one that is wrong."""
    with pytest.raises(ConfigurationError) as caught:
        parse_trusted_peers(["::1", text])
    assert str(caught.value).startswith(f'--forwarded-allow-ips "{text}": {problem}')


@pytest.mark.parametrize("text", ["https://traces.example/{trace_id}?tab=1", "/explore?trace={trace_id}"])
def test_the_address_of_a_trace(text):
    """It is that of another server, or of Grafana's own."""
    assert parse_trace_url(text) == text


@pytest.mark.parametrize("text", ["", "x", "https://traces.example/", "traces.example/{trace_id}", "{trace_id}"])
def test_the_address_of_no_trace(text):
    """Without a place for the id, or without a scheme, a link would lead nowhere."""
    with pytest.raises(ConfigurationError) as error:
        parse_trace_url(text)
    assert str(error.value) == (
        f'--trace-url "{text}" is not understood. Expected an address with {{trace_id}} in the place of a trace\'s id, for '
        "example https://traces.example/trace/{trace_id}."
    )
