from __future__ import annotations

import json
import re
from decimal import Decimal

import pytest
import yaml
from conftest import samples, service_levels
from prometheus_client import generate_latest

from hr_prometheus import metrics
from hr_prometheus.buckets import LatencyBuckets
from hr_prometheus.client.records import CallRecord
from hr_prometheus.errors import ConfigurationError
from hr_prometheus.metric import Metric
from hr_prometheus.observability.alerts import alerts, burn_rates
from hr_prometheus.observability.objectives import objectives_of, parse_objectives
from hr_prometheus.observability.promql import ApplicationMetrics
from hr_prometheus.observability.rules import render_rules
from hr_prometheus.store.store import client_store


def by_name(text):
    return {
        rule.get("record") or rule["alert"]: rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]
    }


def test_the_same_arguments_make_the_same_rules(table):
    """They can be kept with the code."""
    assert render_rules(service_levels(table, ["cell=99"], latency=0.25)) == render_rules(
        service_levels(table, ["cell=99"], latency=0.25)
    )


def test_every_series_is_of_the_job(table):
    """The rules of one application do not look at another."""
    for rule in by_name(render_rules(service_levels(table, ["rest=99"], latency=0.25))).values():
        assert re.findall(r"\w\{", rule["expr"])
        assert not re.findall(r'\w\{(?!job="shop")', rule["expr"])


def test_what_is_recorded_of_routes():
    """Rates of the counters that have a path, quantiles of the histograms, and the share of errors."""
    records = by_name(render_rules(service_levels(application=ApplicationMetrics("app_"))))
    assert records["job_method_path_status:app_request_count:rate5m"]["expr"] == (
        'sum by (job, method, path, status) (rate(app_request_count_total{job="shop"}[5m]))'
    )
    assert records["job_path:app_request_latency:quantile_rate5m"]["labels"] == {"quantile": "0.99"}
    assert "job_path:app_request_count:errors_ratio_rate5m" in records
    assert "job_path:app_response_size_bytes:quantile_rate5m" in records
    basic = by_name(render_rules(service_levels(application=ApplicationMetrics(detail="basic"))))
    assert "job_path:response_size_bytes:quantile_rate5m" not in basic


@pytest.mark.parametrize(
    ("kind", "record"), [("counter", "job_path_colour:x:rate5m"), ("histogram", "job_path:x:quantile_rate5m")]
)
def test_a_metric_that_is_added_is_recorded(monkeypatch, kind, record):
    """Adding it to the catalogue is all that there is to do."""
    added = Metric("x", kind, "Something new", "things", ("path", "colour"))
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, added))
    assert record in by_name(render_rules(service_levels()))


def test_the_alerts_of_an_objective():
    """The limits and windows are those of the SRE workbook."""
    alerting = [
        rule
        for rule in yaml.safe_load(render_rules(service_levels(latency=0.25)))["groups"][2]["rules"]
        if "objective" in rule["labels"]
    ]
    assert [(rule["alert"], rule["labels"]["severity"], rule["labels"]["window"]) for rule in alerting] == [
        (name, severity, window)
        for name in ("RequestErrorsBurnBudget", "RequestLatencyBurnsBudget")
        for severity, window in (("page", "1h"), ("page", "6h"), ("ticket", "3d"))
    ]
    assert alerting[0]["expr"] == (
        'hr_prometheus:bad_requests:ratio_rate1h{job="shop",objective="errors",route="*"} > 0.0144\nand\n'
        'hr_prometheus:bad_requests:ratio_rate5m{job="shop",objective="errors",route="*"} > 0.0144\nand\n'
        '300 * sum_over_time(hr_prometheus:requests:rate5m{job="shop",objective="errors",route="*"}[1h:5m]) >= 100'
    )
    assert 'ratio_rate6h{job="shop",objective="errors",route="*"} > 0.001\n' in alerting[2]["expr"]


def test_a_least_number_of_requests():
    """Each alert of an objective needs it in its long window; 0 asks for none."""
    alerting = [
        rule
        for rule in yaml.safe_load(render_rules(service_levels(latency=0.25)))["groups"][2]["rules"]
        if "objective" in rule["labels"]
    ]
    for rule in alerting:
        kind, window = rule["labels"]["objective"], rule["labels"]["window"]
        of_objective = f'{{job="shop",objective="{kind}",route="*"}}'
        condition = f"300 * sum_over_time(hr_prometheus:requests:rate5m{of_objective}[{window}:5m]) >= 100"
        assert rule["expr"].endswith(f"\nand\n{condition}")
    assert ">= 7\n" in render_rules(service_levels(least_requests=7))
    assert "300" not in render_rules(service_levels(least_requests=0))


def test_latencies_in_native_histograms():
    """Any latency that they can tell will do; without requests nothing is slow, and nothing becomes NaN."""
    levels = service_levels(latency=0.3, buckets=None, application=ApplicationMetrics(native_histograms=True))
    rules = yaml.safe_load(render_rules(levels))["groups"][1]["rules"]
    (slow,) = [rule["expr"] for rule in rules if rule["record"].startswith("hr_prometheus:bad_requests:rate")][1:]
    fraction = (
        'histogram_fraction(-1, 0.3, sum by (job) (\n  rate(request_latency{job="shop",'
        'path!~"unmatched|malformed|/metrics"}[5m])\n))'
    )
    every = 'sum by (job) (hr_prometheus:requests:rate5m{job="shop",objective="latency",route="*"})'
    assert slow == f"{every} * (1 - {fraction}) >= 0\nor 0 * {every}"
    with pytest.raises(ConfigurationError, match=r'--latency "300" is beyond the native histograms'):
        service_levels(latency=300, buckets=None)


@pytest.mark.parametrize(
    ("percentage", "windows"), [("99.9", ["1h", "6h", "3d"]), ("90", ["6h", "3d"]), ("50", ["3d"])]
)
def test_no_alert_that_could_not_fire(percentage, windows):
    """A low objective has no limit above 90 % of the requests."""
    (objective,) = service_levels(percentages=[percentage]).objectives
    assert [rate.long for rate in burn_rates(objective)] == windows
    assert len(alerts(service_levels(percentages=[percentage]))) == len(windows) + 9


def test_latencies():
    """An objective for latencies needs a bucket that ends there."""
    for latency, bucket in ((0.25, "0.25"), (1, "1.0"), (None, None)):
        assert [each.latency_bucket for each in service_levels(latency=latency).objectives] == [bucket]
    for latency, nearest in ((0.3, "0.25 or 0.5"), (0.001, "0.005"), (20, "10")):
        with pytest.raises(
            ConfigurationError, match=f'--latency "{latency:g}" is not a bound .* Take {nearest}, or add it'
        ):
            service_levels(latency=latency)


@pytest.mark.parametrize(
    ("budgets", "latencies", "problem"),
    [
        ([], {"*": 0.25}, '--latency "0.25" is not a bound of the latency histogram of the route rest, .* Take 1 with --latency rest='),
        (["rest=99"], {"*": 0.25}, '--latency "0.25" is not a bound of the latency histogram of the route rest,'),
        ([], {"rest": 2.0}, '--latency "rest=2" is not a bound .* of the route rest, .* Take 1 or 30 with --latency rest='),
        ([], {"*": 0.25, "res": 1.0}, '--latency "res=1": the application has no route named "res". Did you mean "rest"?'),
        ([], {"*": 0.25, "rest": 30.0}, ""),
        (["rest=99"], {"rest": 30.0}, ""),
        ([], {"*": 1.0}, ""),
    ],
)  # fmt: skip
def test_the_latency_of_a_route_is_one_of_its_own_bounds(table, budgets, latencies, problem):
    """A route with buckets of its own has a latency of its own, and so an objective of its own."""
    buckets, budgets = LatencyBuckets({"rest": [1, 30, 60]}), parse_objectives(budgets)
    if problem:
        with pytest.raises(ConfigurationError, match=problem):
            objectives_of(budgets, table, "/metrics", latencies=latencies, buckets=buckets)
        return
    objectives = objectives_of(budgets, table, "/metrics", latencies=latencies, buckets=buckets)
    expected = {"*": latencies.get("*"), "rest": latencies.get("rest")}
    assert {each.route: each.latency for each in objectives} == {
        route: latency for route, latency in expected.items() if route == "*" or latency
    }


def test_budgets_are_exact():
    """No binary fractions in a limit that people read."""
    (objective,) = service_levels(percentages=["99.99"]).objectives
    assert objective.budget == Decimal("0.0001")
    assert "> 0.00144\n" in render_rules(service_levels(percentages=["99.99"]))


@pytest.mark.parametrize(("workers", "fires"), [(1, True), (4, False)])
def test_the_blocks_of_workers_add_up(tmp_path, promtool, workers, fires):
    """10 % of the time of one event loop are too much; they are 2.5 % of that of four."""
    (tmp_path / "rules.yml").write_text(render_rules(service_levels()))
    labels = {"job": "shop", "instance": "a"}
    (alert,) = [each for each in alerts(service_levels()) if each.name == "EventLoopBlocked"]
    firing = {
        "exp_labels": {**labels, "severity": "ticket"},
        "exp_annotations": {
            "summary": "The event loop of a of shop was blocked for more than 5 % of ten minutes.",
            "description": alert.description,
        },
    }
    series = {'asyncio_event_loop_blocked_seconds_total{job="shop",instance="a",path="/a"}': "0+6x60"}
    series |= {f'hr_prometheus_worker_up{{job="shop",instance="a",worker="{each}"}}': "1x60" for each in range(workers)}
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": "30m", "alertname": "EventLoopBlocked", "exp_alerts": [firing] if fires else []}
        ],
    }
    (tmp_path / "tests.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": [test]}))  # YAML, too
    done = promtool("test", "rules", tmp_path / "tests.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_loop_metrics_there_is_no_alert_for_the_loop():
    """Nothing is recorded of it either."""
    text = render_rules(service_levels(application=ApplicationMetrics(has_loop_metrics=False)))
    assert "EventLoopBlocked" not in text
    assert "event_loop" not in text


def test_outgoing_calls_are_recorded_by_host_and_have_alerts():
    """Without the client's metrics there are neither."""
    text = render_rules(service_levels())
    for name in (
        "job_client_host:client_request_latency:quantile_rate5m", "job_client_host:client_request_count:errors_ratio_rate5m",
        "OutgoingCallsFail", "OutgoingCallsSlow",
    ):  # fmt: skip
        assert text.count(name)
    assert "reason!=" in text  # a cancelled call is no failure of the host
    without = render_rules(service_levels(application=ApplicationMetrics(has_client_metrics=False)))
    assert "client_" not in without
    assert "OutgoingCalls" not in without


def test_each_failed_call_is_counted_once(tmp_path, promtool, registry):
    """Also a 5xx whose body breaks off: the share of failures is exact, and never above 1."""
    store = client_store(registry)
    ends = {"bad.example": [("503", "cut"), ("500", None), ("502", "timeout"), ("error", "dns")]}
    ends["good.example"] = [("200", None), ("200", "cancelled"), ("200", "cut"), ("503", "cut")]
    for host, calls in ends.items():
        for method in ("GET", "POST"):
            record = CallRecord(store, "default", method, host)
            for status, reason in calls:
                record.begin()
                record.end(status, reason, 0.1, None)
    (tmp_path / "rules.yml").write_text(render_rules(service_levels()))
    series = [
        {"series": name.replace("{", '{job="shop",instance="a",', 1), "values": f"0+{value:g}x20"}
        for name, value in samples(generate_latest(registry).decode()).items()
        if "_total{" in name
    ]
    expected = [
        {"labels": f'{{job="shop",client="default",host="{host}"}}', "value": share}
        for host, share in (("bad.example", 1), ("good.example", 0.5))
    ]
    # Rounded, because Prometheus adds up series in any order.
    record = "round(job_client_host:client_request_count:errors_ratio_rate5m, 0.001)"
    query = {"expr": record, "eval_time": "15m"}
    test = {"interval": "1m", "input_series": series, "promql_expr_test": [query | {"exp_samples": expected}]}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": [test]}))
    done = promtool("test", "rules", tmp_path / "tests.yml")
    assert done.returncode == 0, done.stdout + done.stderr
