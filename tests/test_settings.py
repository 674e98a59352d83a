from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hr_prometheus.errors import ConfigurationError, SettingError
from hr_prometheus.origins import Origin, sentence_of
from hr_prometheus.settings import Settings


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keyfile": "key.pem"}, "--keyfile was given without --certfile"),
        ({"log_config": "log.json", "log_format": "json"}, "--log-format was given with --log-config"),
        ({"metrics_host": "0.0.0.0"}, "--metrics-host was given without --metrics-port"),  # noqa: S104
        ({"fds": (3,), "port": 0}, "--port was given with fd, whose sockets are bound already. Leave it out."),
        ({"client_by_route": True}, "--client-by-route was given without --client-metrics"),
        ({"monitor": "m:M", "buckets": {"*": (1.0,)}}, "given with --buckets, which only the default monitor"),
        (
            {"monitor": "m:M", "metric_prefix": "my_", "detail": "full"},
            "given with --metric-prefix and --detail, which only the default monitor",
        ),
    ],
)
def test_options_that_contradict_each_other(options, words):
    """A combination without a meaning is refused before anything happens."""
    with pytest.raises(ConfigurationError, match=words):
        Settings(target="a:b", **options)


def test_settings_survive_json():
    """As the supervisor hands them to its workers."""
    settings = Settings(
        target="a:b", arguments=("x", "\udc80"), fixed_routes={"r": frozenset({"p", "q"})}, exclude=("/a*",),
        allow_values={"r": {"p": frozenset({"north"})}}, buckets={"*": (0.1, 1e300), "r": (1.0,)}, workers=3, shutdown_timeout=0.0,
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


OFF, FORMAT = Origin("--access-log", ("false",)), Origin("--access-log-format", ("%a",))
IN_FILE = {"file": "pyproject.toml", "lines": (1,)}


@pytest.mark.parametrize(
    ("access_log", "log_format", "origins", "expected"),
    [
        (None, None, {}, None),
        (True, None, {}, True),
        (None, "%a", {}, True),
        (True, "%a", {}, True),
        (False, None, {"access_log": OFF}, False),
        (False, "%a", {"access_log": OFF, "access_log_format": replace(FORMAT, **IN_FILE)}, False),
        (False, "%a", {"access_log": OFF, "access_log_format": replace(FORMAT, variable="V")}, False),
        (False, "%a", {"access_log": replace(OFF, **IN_FILE), "access_log_format": replace(FORMAT, **IN_FILE)}, False),
        (False, "%a", {"access_log": replace(OFF, **IN_FILE), "access_log_format": FORMAT}, True),
        (False, "%a", {"access_log": replace(OFF, **IN_FILE), "access_log_format": replace(FORMAT, variable="V", **IN_FILE)}, True),
        (False, "%a", {"access_log": replace(OFF, variable="V"), "access_log_format": FORMAT}, True),
    ],
)  # fmt: skip
def test_whether_there_is_an_access_log(access_log, log_format, origins, expected):
    """A format asks for one. What wins over it, and what stands beside it, may switch it off."""
    settings = Settings(target="a:b", access_log=access_log, access_log_format=log_format, origins=origins)
    assert settings.wants_access_log is expected


def test_a_format_beside_no_access_log():
    """On one command line they contradict each other."""
    with pytest.raises(SettingError, match="--access-log-format was given with --no-access-log"):
        Settings(
            target="a:b",
            access_log=False,
            access_log_format="%a",
            origins={"access_log": OFF, "access_log_format": FORMAT},
        )
