from __future__ import annotations

import re
from decimal import Decimal

import pytest
import yaml
from test_observability_promql import table  # noqa: F401  # a fixture

from hr_prometheus import metrics
from hr_prometheus.errors import ConfigurationError
from hr_prometheus.metrics import LATENCY_BUCKETS, Metric
from hr_prometheus.observability.alerts import alerts, burns
from hr_prometheus.observability.objectives import objectives, parse_objectives
from hr_prometheus.observability.promql import Source
from hr_prometheus.observability.rules import latency_bound, rules


def made(routes=(), percentages=(), latency=None, source=None, **options):
    found = objectives(parse_objectives(percentages), list(routes), "/metrics")
    return rules(source or Source(), "shop", found, buckets=LATENCY_BUCKETS, latency=latency, **options)


def by_name(text):
    return {
        rule.get("record") or rule["alert"]: rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]
    }


def test_the_same_arguments_make_the_same_rules(table):  # noqa: F811
    """They can be kept with the code."""
    assert made(table, ["cell=99"], 0.25) == made(table, ["cell=99"], 0.25)


def test_every_series_is_of_the_job(table):  # noqa: F811
    """The rules of one application do not look at another."""
    for rule in by_name(made(table, ["rest=99"], 0.25)).values():
        assert re.findall(r"\w\{", rule["expr"])
        assert not re.findall(r'\w\{(?!job="shop")', rule["expr"])


def test_what_is_recorded_of_routes():
    """Rates of the counters that have a path, quantiles of the histograms, and the share of errors."""
    found = by_name(made(source=Source("app_")))
    assert found["job_method_path_status:app_request_count:rate5m"]["expr"] == (
        'sum by (job, method, path, status) (rate(app_request_count_total{job="shop"}[5m]))'
    )
    assert found["job_path:app_request_latency:quantile_rate5m"]["labels"] == {"quantile": "0.99"}
    assert "job_path:app_request_count:errors_ratio_rate5m" in found
    assert "job_path:app_response_size_bytes:quantile_rate5m" in found
    basic = by_name(made(source=Source(detail="basic")))
    assert "job_path:response_size_bytes:quantile_rate5m" not in basic


@pytest.mark.parametrize(
    ("kind", "record"), [("counter", "job_path_colour:x:rate5m"), ("histogram", "job_path:x:quantile_rate5m")]
)
def test_a_metric_that_is_added_is_recorded(monkeypatch, kind, record):
    """Adding it to the catalogue is all that there is to do."""
    added = Metric("x", kind, "Something new", "things", ("path", "colour"))
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, added))
    assert record in by_name(made())


def test_the_alerts_of_an_objective():
    """The limits and windows are those of the SRE workbook."""
    rules = [rule for rule in yaml.safe_load(made(latency=0.25))["groups"][2]["rules"] if "objective" in rule["labels"]]
    assert [(rule["alert"], rule["labels"]["severity"], rule["labels"]["window"]) for rule in rules] == [
        (name, severity, window)
        for name in ("RequestErrorsBurnBudget", "RequestLatencyBurnsBudget")
        for severity, window in (("page", "1h"), ("page", "6h"), ("ticket", "3d"))
    ]
    assert rules[0]["expr"] == (
        'hr_prometheus:bad_requests:ratio_rate1h{job="shop",objective="errors",route="*"} > 0.0144\nand\n'
        'hr_prometheus:bad_requests:ratio_rate5m{job="shop",objective="errors",route="*"} > 0.0144\nand\n'
        '300 * sum_over_time(hr_prometheus:requests:rate5m{job="shop",objective="errors",route="*"}[1h:5m]) >= 100'
    )
    assert 'ratio_rate6h{job="shop",objective="errors",route="*"} > 0.001\n' in rules[2]["expr"]


def test_a_least_number_of_requests():
    """Each alert of an objective needs it in its long window; 0 asks for none."""
    rules = [rule for rule in yaml.safe_load(made(latency=0.25))["groups"][2]["rules"] if "objective" in rule["labels"]]
    for rule in rules:
        kind, window = rule["labels"]["objective"], rule["labels"]["window"]
        of_objective = f'{{job="shop",objective="{kind}",route="*"}}'
        condition = f"300 * sum_over_time(hr_prometheus:requests:rate5m{of_objective}[{window}:5m]) >= 100"
        assert rule["expr"].endswith(f"\nand\n{condition}")
    assert ">= 7\n" in made(least_requests=7)
    assert "300" not in made(least_requests=0)


@pytest.mark.parametrize(
    ("percentage", "windows"), [("99.9", ["1h", "6h", "3d"]), ("90", ["6h", "3d"]), ("50", ["3d"])]
)
def test_no_alert_that_could_not_fire(percentage, windows):
    """A low objective has no limit above 90 % of the requests."""
    (objective,) = objectives(parse_objectives([percentage]), [], "/metrics")
    assert [burn.long for burn in burns(objective)] == windows
    assert len(alerts(Source(), "shop", [objective], None, 100)) == len(windows) + 6


def test_latencies():
    """An objective for latencies needs a bucket that ends there."""
    assert latency_bound(0.25, LATENCY_BUCKETS) == "0.25"
    assert latency_bound(1, LATENCY_BUCKETS) == "1.0"
    for latency, nearest in ((0.3, "0.25 or 0.5"), (0.001, "0.005"), (20, "10")):
        with pytest.raises(
            ConfigurationError, match=f'--latency "{latency:g}" is no bound .* Take {nearest}, or add it'
        ):
            latency_bound(latency, LATENCY_BUCKETS)


def test_budgets_are_exact():
    """No binary fractions in a limit that people read."""
    (objective,) = objectives(parse_objectives(["99.99"]), [], "/metrics")
    assert objective.budget == Decimal("0.0001")
    assert "> 0.00144\n" in made(percentages=["99.99"])
