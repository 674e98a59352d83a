from __future__ import annotations

import json

import pytest

from hr_prometheus.errors import ConfigurationError, SettingError
from hr_prometheus.settings import (
    Origin,
    Settings,
    available_processors,
    parse_allowed_values,
    parse_buckets,
    parse_fixed_routes,
    parse_workers,
    sentence_of,
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
    """A combination without a meaning is refused before anything happens."""
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


def test_settings_survive_json():
    """As the supervisor hands them to its workers."""
    settings = Settings(
        target="a:b", arguments=("x", "\udc80"), fixed_routes={"r": frozenset({"p", "q"})}, exclude=("/a*",),
        allow_values={"r": {"p": frozenset({"north"})}}, buckets=(0.1, 1e300), workers=3, shutdown_timeout=0.0,
        origins={"workers": Origin("--workers", ("3",), "HR_PROMETHEUS_WORKERS", "3"), "exclude": Origin("--exclude", ("/a*",))},
    )  # fmt: skip
    assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    assert Settings.from_json(Settings(target="a:b").to_json()) == Settings(target="a:b")


POLICY = SettingError("allow_values", "allow_values={'cel': …}", ": no such route.", ("cel", "side"))


@pytest.mark.parametrize(
    ("origins", "sentence"),
    [
        ({}, "allow_values={'cel': …}: no such route."),
        ({"allow_values": Origin("--allow-values", ("cell.side=a",))}, "allow_values={'cel': …}: no such route."),
        (
            {"allow_values": Origin("--allow-values", ("cell.side=a", "cel.side= b,c"))},
            '--allow-values "cel.side= b,c": no such route.',
        ),
        (
            {"allow_values": Origin("--allow-values", ("cel.side=b",), "ALLOWED", "cel.side=b", is_list=True)},
            'ALLOWED="cel.side=b" (values are separated by spaces): no such route.',
        ),
    ],
)
def test_an_error_quotes_what_was_typed(origins, sentence):
    """It names the option with its value or the variable; a policy of the application's own keeps the library's words."""
    assert sentence_of(POLICY, origins) == sentence


def test_a_limit_for_blocks_needs_loop_metrics():
    """Without them nothing is known to be blocked; the two options contradict each other."""
    with pytest.raises(SettingError, match="--blocked-after was given with --no-loop-metrics"):
        Settings(target="x", loop_metrics=False, blocked_after=0.5)
    assert Settings(target="x", loop_metrics=False).blocked_after is None
