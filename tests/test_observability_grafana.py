from __future__ import annotations

import json

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from hr_prometheus.observability.grafana import Traces, render_dashboard
from hr_prometheus.observability.panels import sections
from hr_prometheus.observability.promql import ApplicationMetrics


def every_panel(board):
    """Return the panels that are rows or in sight, and those in folded rows."""
    return [each for panel in board["panels"] for each in (panel, *panel.get("panels", ()))]


def test_the_same_arguments_make_the_same_dashboard(table):
    """It can be kept with the code: no times, no numbers by chance, a newline at the end."""
    text = render_dashboard(ApplicationMetrics(), "shop", table)
    assert text == render_dashboard(ApplicationMetrics(), "shop", table)
    assert text.endswith("}\n")
    assert json.loads(text)["uid"] == "hr-prometheus-shop"
    assert (
        json.loads(render_dashboard(ApplicationMetrics(), "A ü/" * 20, table))["uid"]
        == ("hr-prometheus-" + "A-" * 40)[:40]
    )


def test_it_is_what_the_schema_of_grafana_says(table):
    """Grafana's own types read it, and nothing is lost between reading and writing."""
    board = json.loads(render_dashboard(ApplicationMetrics(), "shop", table))
    assert json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder)) == board


def test_every_panel_is_there(table):
    """Each has a number and a place of its own, and its queries."""
    board = json.loads(render_dashboard(ApplicationMetrics(), "shop", table))
    panels = every_panel(board)
    assert sorted(panel["id"] for panel in panels) == list(range(1, len(panels) + 1))
    asked = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    expected = [
        query.expression
        for section in sections(ApplicationMetrics(), table)
        for panel in section.panels
        for query in panel.queries
    ]
    assert asked == expected
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(cells)[0] < 24
        assert not cells & taken
        taken |= cells


def test_the_variables():
    """What can be chosen is what Prometheus has; the job is the one that was given."""
    board = json.loads(render_dashboard(ApplicationMetrics("app_"), "shop", []))
    variables = {each["name"]: each for each in board["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance", "path"]
    assert variables["job"]["current"]["value"] == ["shop"]
    assert (
        variables["path"]["query"] == 'label_values(app_request_count_total{job=~"$job",instance=~"$instance"}, path)'
    )
    assert variables["path"]["allValue"] == ".*"


def test_traces_are_off_by_default_and_shown_on_demand(table):
    """One query of each panel of latencies then asks for exemplars, and no other."""
    application = ApplicationMetrics(latency_by_status=True)
    shown = json.loads(render_dashboard(application, "shop", table, Traces(are_shown=True)))
    plain = json.loads(render_dashboard(application, "shop", table))
    asking = [
        (panel["title"], [target.pop("exemplar", False) for target in panel["targets"]])
        for panel in every_panel(shown)
        if any("exemplar" in target for target in panel.get("targets", ()))
    ]
    assert asking[:3] == [
        ("Request latency", [False, False, True]),
        ("Request latency: how many", [True]),
        ("95 % of the errors are answered within", [True]),
    ]
    assert {title for title, _ in asking[3:]} == {"Request latency"}  # of each route
    assert shown == plain


def test_a_trace_has_a_link():
    """Its id is typed into a box, which the address of the panels' links has in its place."""
    traces = Traces(are_shown=True, url="https://traces.example/{trace_id}?tab=1")
    board = json.loads(render_dashboard(ApplicationMetrics(), "shop", [], traces))
    box = board["templating"]["list"][-1]
    assert (box["name"], box["type"], box["label"]) == ("trace_id", "textbox", "Trace")
    linked = [panel for panel in every_panel(board) if panel.get("links")]
    assert [panel["title"] for panel in linked] == ["Request latency", "Request latency: how many"]
    for panel in linked:
        (link,) = panel["links"]
        assert link["url"] == "https://traces.example/${trace_id}?tab=1"
        assert link["targetBlank"]
        assert any(target.get("exemplar") for target in panel["targets"])
