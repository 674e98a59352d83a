from __future__ import annotations

import re

import pytest
from conftest import service_levels
from simulated_rules import apart, keep, load, without_routes

from hr_prometheus.observability.promql import ApplicationMetrics
from hr_prometheus.observability.rule_tests import render_rule_tests
from hr_prometheus.observability.rules import render_rules


@pytest.fixture
def written(table, tmp_path):
    """Write the rules and their tests; return both files."""

    def write(percentages=(), **options):
        levels = service_levels(table if percentages else (), percentages, job="the shop", **options)
        (tmp_path / "rules.yml").write_text(render_rules(levels))
        (tmp_path / "tests.yml").write_text(render_rule_tests(levels, "rules.yml"))
        return tmp_path / "rules.yml", tmp_path / "tests.yml"

    return write


@pytest.mark.parametrize(
    ("words", "percentage", "options"),
    [
        ("latency, route rest", "rest=99.5", {"latency": 0.5}),
        ("", "50", {"application": ApplicationMetrics("app_")}),
        ("route rest", "rest=99.5", {"application": ApplicationMetrics(names=("http",), latency_by_status=True)}),
        ("", "99", {"latency": 0.5, "application": ApplicationMetrics(names=("otel", "seed"), latency_by_status=True)}),
    ],
)
def test_promtool_agrees(written, promtool, words, percentage, options):
    """The rules are right, and each alert fires when its test says so, and no other does.

    Days are simulated for each objective, so some names are tested with some of them only. Tests of less have all rules.
    """
    rule_file, file = written([percentage], **options)
    checked = promtool("check", "rules", rule_file)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert keep(file, words)
    assert promtool("test", "rules", *apart(rule_file, file)).stdout.count("SUCCESS\n\n") == 2


def test_the_traffic_is_enough_for_the_alerts(written, promtool):
    """However many requests an alert needs, its test has them."""
    file = without_routes(*written(least_requests=1_000_000))
    assert keep(file, "requests fail")
    assert promtool("test", "rules", file).stdout.endswith("SUCCESS\n\n")


def test_five_percent_of_errors_fire_the_right_alert(written, promtool):
    """20 minutes of 5 % errors after 17 good hours page by the window of an hour, and by nothing else.

    This is what `rules --tests` writes: 99.9 is the default.
    """
    _, file = written()
    tests = load(file)["tests"]
    test, _few = [test for test in tests if "fail" in test["name"]]
    assert test["name"] == "5 % of the requests fail (errors, route *) for 20 minutes"
    fired = [(check["eval_time"], check["exp_alerts"]) for check in test["alert_rule_test"] if check["exp_alerts"]]
    ((time, (alert,)),) = fired
    assert time == "1040m"
    assert alert["exp_labels"] == {
        "job": "the shop",
        "objective": "errors",
        "route": "*",
        "window": "1h",
        "severity": "page",
    }
    assert {check["alertname"] for check in test["alert_rule_test"]} >= {
        "RequestErrorsBurnBudget",
        "HrPrometheusErrors",
    }
    assert promtool("test", "rules", file).stdout.endswith("SUCCESS\n\n")


@pytest.mark.parametrize(
    ("pattern", "replacement", "test"),
    [
        (r"> 0\.0144", "> 0.0244", "for 20 minutes"),  # a page that comes too late
        (r"\[3d\]", "[1h]", "for 20 minutes"),  # a ticket that comes too early
        (r"route=\\?\"\*\\?\"", 'route="cell"', "for 20 minutes"),  # an alert that looks at another route
        (r">= 100", ">= 40", "few requests"),  # a page for a handful of errors
        (r">= 100", ">= 300", "few requests"),  # none although there are enough requests
        (r"== 0 or absent", "== 1 or absent", "HrPrometheusErrors"),  # a page while all is well
        (r"> 2", "> 200", "WorkersRestart"),
        (r"max-requests\|reload", "nothing", "NoWorker"),
    ],
)
def test_a_wrong_rule_is_noticed(written, promtool, pattern, replacement, test):
    """The tests that are written can fail."""
    rule_file, file = written()
    changed, times = re.subn(pattern, replacement, rule_file.read_text())
    assert times
    rule_file.write_text(changed)
    file = without_routes(rule_file, file)
    assert keep(file, test)
    done = promtool("test", "rules", file)
    assert done.returncode == 1
    assert "FAILED" in done.stdout + done.stderr


def test_few_requests_fire_nothing(written, promtool):
    """Just after a start a handful of errors is a large share; without a least number of requests they page."""
    rule_file, file = written(latency=0.5)
    few = keep(file, "few requests")
    assert [test["name"] for test in few] == [
        f"5 % of few requests fail ({kind}, route *): 50, then 200" for kind in ("errors", "latency")
    ]
    for test in few:
        fired = [
            (check["eval_time"], len(check["exp_alerts"])) for check in test["alert_rule_test"] if check["exp_alerts"]
        ]
        assert fired == [("140m", 3)]
    assert promtool("test", "rules", file).returncode == 0
    rule_file.write_text(render_rules(service_levels(job="the shop", latency=0.5, least_requests=0)))
    failed = promtool("test", "rules", file)
    assert failed.returncode == 1
    assert "time: 1h20m" in failed.stdout + failed.stderr
