from __future__ import annotations

import pytest

from hr_prometheus.config import Settings, parse_allowed_values, parse_buckets, parse_fixed_routes
from hr_prometheus.errors import ConfigurationError


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
def test_fixed_routes_that_are_none(text):
    """Anything else is quoted, with what was expected."""
    with pytest.raises(ConfigurationError, match="is not understood. Expected NAME=PARAM") as caught:
        parse_fixed_routes([text])
    assert f'"{text}"' in str(caught.value)


def test_buckets():
    """Numbers separated by commas, in seconds."""
    assert parse_buckets("0.05, 1,2.5") == (0.05, 1.0, 2.5)
    with pytest.raises(ConfigurationError, match='--buckets "fast" is not understood'):
        parse_buckets("fast")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keyfile": "key.pem"}, "--keyfile was given without --certfile"),
        ({"metrics_host": "0.0.0.0"}, "--metrics-host was given without --metrics-port"),  # noqa: S104
        ({"monitor": "m:M", "buckets": (1.0,)}, "belong to the default monitor"),
        ({"monitor": "m:M", "metric_prefix": "my_"}, "belong to the default monitor"),
    ],
)
def test_options_that_contradict_each_other(options, words):
    """A combination which cannot mean anything is refused before anything happens."""
    with pytest.raises(ConfigurationError, match=words):
        Settings(target="a:b", **options)


def test_allowed_values():
    """NAME.PARAM=VALUE[,VALUE…]; names may have dots, and a repeated parameter adds up."""
    assert parse_allowed_values(["api.cell.side=north,south", "api.cell.side=east"]) == {
        "api.cell": {"side": {"north", "south", "east"}}
    }


@pytest.mark.parametrize(
    "text", ["cell", "cell=north", "cell.side", "cell.side=", ".side=north", "cell.=x", "c.s=a,,b"]
)
def test_allowed_values_that_are_none(text):
    """Anything else is quoted, with what was expected."""
    with pytest.raises(ConfigurationError, match="is not understood. Expected NAME.PARAM=VALUE"):
        parse_allowed_values([text])
