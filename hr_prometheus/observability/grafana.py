"""A Grafana dashboard of an application, made with Grafana's own grafana-foundation-sdk."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueGraphMode, LegendDisplayMode, LegendPlacement, VizOrientation
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    FieldColorModeId,
    GridPos,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from hr_prometheus.metrics import REQUEST_COUNT
from hr_prometheus.observability.panels import INSTANCE, JOB, sections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hr_prometheus.observability.panels import Panel, Section
    from hr_prometheus.observability.promql import ApplicationMetrics
    from hr_prometheus.observability.route_table import Row

#: Grafana's names of the units; anything else is a plain number.
UNITS = {"seconds": "s", "bytes": "bytes", "share": "percentunit"}
_DATA_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_COLUMNS, _HEIGHTS = 24, {"number": 4}
#: The place of a trace's id in an address, and the dashboard's variable for it.
TRACE_ID, _TRACE_VARIABLE = "{trace_id}", "${trace_id}"


@dataclass(frozen=True)
class Traces:
    """The traces of requests on a dashboard.

    *are_shown* is whether latencies have exemplars. With *url* there is a link from a trace's id to the trace, at the address
    that has the id in the place of ``{trace_id}``.
    """

    are_shown: bool = False
    url: str | None = None


def render_dashboard(application: ApplicationMetrics, job: str, table: Sequence[Row], traces: Traces = Traces()) -> str:
    """Return the JSON of a dashboard that first shows the application that Prometheus scrapes as *job*.

    It may show *traces*. The same arguments make the same JSON, byte for byte.
    """
    board = (
        dashboard.Dashboard(job)
        .uid(_uid(job))
        .description("Made by `hr-prometheus dashboard`; make it again rather than change it.")
        .tags(["aiohttp", "hr-prometheus"])
        .time("now-30m", "now")
        .refresh("30s")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    requests, path = application.name(REQUEST_COUNT), application.label(REQUEST_COUNT, "path")
    for name, matchers, label in (
        ("job", "", "job"), ("instance", f"{{{JOB}}}", "instance"), ("path", f"{{{JOB},{INSTANCE}}}", path)
    ):  # fmt: skip
        board.with_variable(_variable(name, f"label_values({requests}{matchers}, {label})", job))
    if traces.url is not None:
        board.with_variable(dashboard.TextBoxVariable(TRACE_ID.strip("{}")).label("Trace"))
    numbers = count(1)
    top = 0
    for section in sections(application, table):
        row = dashboard.Row(section.title).id(next(numbers)).grid_pos(GridPos(h=1, w=_COLUMNS, x=0, y=top))
        places = _places(section, top + 1)
        panels = [
            _panel(panel, traces).id(next(numbers)).grid_pos(place)
            for panel, place in zip(section.panels, places, strict=True)
        ]
        if section.is_folded:
            for panel in panels:
                row.with_panel(panel)
            board.with_row(row.collapsed(True))
            top += 1
        else:
            board.with_row(row)
            for panel in panels:
                board.with_panel(panel)
            top = max(place.y + place.h for place in places)
    return json.dumps(board.build(), cls=JSONEncoder, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def _variable(label: str, query: str, job: str) -> dashboard.QueryVariable:
    first = VariableOption(selected=True, text=[job], value=[job])
    every = VariableOption(selected=True, text=["All"], value=["$__all"])
    return (
        dashboard.QueryVariable(label)
        .label(label.capitalize())
        .datasource(_DATA_SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(first if label == "job" else every)
    )


def _uid(job: str) -> str:
    """Return an identifier for Grafana: at most 40 letters, digits, hyphens and underscores."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", f"hr-prometheus-{job}")[:40]


def _places(section: Section, top: int) -> list[GridPos]:
    """Return the places of a section's panels, from left to right and downwards from *top*. The last one fills its row."""
    places, left, height = [], 0, 0
    for panel in section.panels:
        if left + panel.width > _COLUMNS:
            left, top = 0, top + height
        height = _HEIGHTS.get(panel.kind, 8)
        places.append(GridPos(h=height, w=panel.width, x=left, y=top))
        left += panel.width
    places[-1].w = _COLUMNS - places[-1].x
    return places


def _panel(panel: Panel, traces: Traces) -> Any:
    """Return the builder of a panel."""
    builder: Any = {"graph": _graph, "number": _number, "bars": _bars, "heatmap": _heatmap}[panel.kind]()
    builder.title(panel.title).description(panel.description).datasource(_DATA_SOURCE)
    unit = UNITS.get(panel.unit, "short")
    if panel.kind == "heatmap":
        builder.y_axis(heatmap.YAxisConfig().unit(unit))
    else:
        builder.unit(unit).min(0)
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        target = prometheus.Dataquery().ref_id(letter).expr(query.expression).legend_format(query.legend)
        if panel.kind == "heatmap":
            target.format(PromQueryFormat.HEATMAP)
        if traces.are_shown and panel.has_exemplars and query is panel.queries[-1]:
            target.exemplar(True)
        builder.with_target(target.instant() if panel.kind == "bars" else target.range())
    if traces.url is not None and panel.has_exemplars:
        address = traces.url.replace(TRACE_ID, _TRACE_VARIABLE)
        link = dashboard.DashboardLink(f"Trace {_TRACE_VARIABLE}").type(DashboardLinkType.LINK)
        builder.links([link.url(address).target_blank(True)])
    return builder


def _graph() -> Any:
    legend = common.VizLegendOptions().show_legend(True)
    legend.display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    return timeseries.Panel().fill_opacity(10).legend(legend)


def _number() -> Any:
    return stat.Panel().graph_mode(BigValueGraphMode.AREA).reduce_options(_last())


def _bars() -> Any:
    bars = bargauge.Panel().orientation(VizOrientation.HORIZONTAL).reduce_options(_last())
    return bars.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.CONTINUOUS_BL_PU))


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"])


def _heatmap() -> Any:
    colour = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    return heatmap.Panel().color(colour.exponent(0.5).fill("dark-orange"))
