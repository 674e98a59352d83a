from __future__ import annotations

import pytest
from aiohttp import web

from hr_prometheus import metrics
from hr_prometheus.metric import Metric
from hr_prometheus.observability.panels import sections
from hr_prometheus.observability.promql import ApplicationMetrics
from hr_prometheus.observability.route_table import rows_of
from hr_prometheus.settings import Settings


def queries(sections):
    return [query.expression for section in sections for panel in section.panels for query in panel.queries]


def test_every_metric_of_the_catalogue_is_shown():
    """No metric is without a panel, and each panel asks for the job and the instance that are chosen."""
    expressions = queries(sections(ApplicationMetrics("app_"), []))
    for metric in metrics.METRICS:
        assert any(ApplicationMetrics("app_").name(metric) in expression for expression in expressions)
    assert all('job=~"$job",instance=~"$instance"' in expression for expression in expressions)


def test_no_two_panels_of_a_section_have_one_title():
    """A reader knows which is which."""
    for section in sections(ApplicationMetrics(), []):
        titles = [panel.title for panel in section.panels]
        assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (
            Metric("new_things", "counter", "New things", "things", ("colour",)),
            (
                'sum by (colour) (rate(new_things_total{job=~"$job",instance=~"$instance"}[$__rate_interval]))',
                "{{colour}}",
            ),
        ),
        (
            Metric("new_depth", "gauge", "Depth", "things", ("path",)),
            ('topk(10, sum by (path) (new_depth{job=~"$job",instance=~"$instance",path=~"$path"}) > 0)', "{{path}}"),
        ),
        (
            Metric("new_weight_bytes", "histogram", "Weight", "bytes", (), (1.0, 2.0)),
            ('sum (rate(new_weight_bytes_sum{job=~"$job",instance=~"$instance"}[$__rate_interval]))', "bytes"),
        ),
    ],
)
def test_a_metric_that_is_added_has_panels(monkeypatch, metric, expected):
    """Adding it to the catalogue is all that there is to do."""
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, metric))
    panels = [panel for panel in sections(ApplicationMetrics(), [])[-1].panels if panel.description == metric.help]
    assert expected in [(query.expression, query.legend) for panel in panels for query in panel.queries]
    assert all(panel.unit == metric.unit and panel.title.startswith("New ") for panel in panels)


def test_the_level_of_detail():
    """With the basic level there is no section without metrics."""
    titles = [section.title for section in sections(ApplicationMetrics(detail="basic"), [])]
    assert titles == [
        "Overview", "Requests", "Routes", "Event loop", "Outgoing calls", "Workers", "hr-prometheus itself",
    ]  # fmt: skip


def test_without_loop_metrics():
    """An application whose event loop is not measured has no section for it."""
    without = sections(ApplicationMetrics(has_loop_metrics=False), [])
    assert "Event loop" not in [section.title for section in without]
    assert not [expression for expression in queries(without) if "_loop_" in expression]


def test_outgoing_calls():
    """The dashboard says which host is slow, and which routes wait for it, if that is measured."""
    without = queries(sections(ApplicationMetrics(has_client_metrics=False), []))
    assert not [expression for expression in without if "client_" in expression]
    own, by_route = (queries(sections(ApplicationMetrics(has_calls_by_route=each), [])) for each in (False, True))
    slow = (
        "topk(10, histogram_quantile(0.95, sum by (client, host, le) (rate("
        'client_request_latency_bucket{job=~"$job",instance=~"$instance"}[$__rate_interval]))) > 0)'
    )
    assert slow in own
    (added,) = set(by_route) - set(own)
    assert "sum by (path, host) (rate(client_request_latency_sum{" in added


def test_a_section_for_each_route(table):
    """Folded, with the methods, the label and the name; what is no route has none."""
    folded = [section for section in sections(ApplicationMetrics(), table) if section.is_folded]
    assert [section.title for section in folded[:2]] == ["GET /<tail> (rest)", "GET /cells/{cell} (cell)"]
    assert len(folded) == len(table) - 2
    assert 'path="/cells/{cell}",method=~"GET",status=~"5.."' in queries(folded[1:2])[-1]


async def handler(_request):
    return web.Response()


def test_what_looks_like_a_variable_is_none():
    """Grafana fills in nothing in the path of a route."""
    app = web.Application()
    app.router.add_get("/$job/[[y]]/$__all", handler)
    (section,) = [each for each in sections(ApplicationMetrics(), rows_of(app, Settings(target="x"))) if each.is_folded]
    assert all(r'path="/\x24job/[\x5by]]/\x24__all"' in query for query in queries([section]))
