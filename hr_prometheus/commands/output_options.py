"""The options for what a command writes: each is a decorator, with the name of the option."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hr_prometheus.commands.parameters import output_option
from hr_prometheus.commands.types import FilePath, WholeNumber
from hr_prometheus.settings import DEFAULT_LEAST_REQUESTS
from hr_prometheus.written_forms import parse_latencies, parse_trace_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from decimal import Decimal

output_format = output_option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="A table for people or JSON for programs.",
)
check = output_option("--check", is_flag=True, help="Only check the settings.")
max_series = output_option(
    "--max-series",
    type=WholeNumber(0, example=3000),
    metavar="N",
    help="Exit with 4 if there can be more series than this.",
)
job = output_option(
    "--job",
    metavar="NAME",
    default="hr-prometheus",
    show_default=True,
    help="Name of the job under which Prometheus scrapes the application.",
)


def _parse_objectives(texts: Iterable[str]) -> Mapping[str, Decimal]:
    from hr_prometheus.observability.objectives import parse_objectives  # seldom needed

    return parse_objectives(texts)


objective = output_option(
    "--objective",
    "objectives",
    multiple=True,
    parse=_parse_objectives,
    takes_numbers=True,
    takes_table=True,
    metavar="[NAME=]PERCENT",
    show_default="99.9",
    help="Percentage of the requests that must go well: of the application, or of its route NAME. Repeatable.",
)
latency = output_option(
    "--latency",
    "latencies",
    multiple=True,
    metavar="[NAME=]SECONDS",
    parse=parse_latencies,
    takes_numbers=True,
    takes_table=True,
    help="Time within which that percentage of requests must be answered: of the application, or of its route NAME; one of "
    "--buckets. Without it no alert looks at latencies. Repeatable.",
)
least_requests = output_option(
    "--least-requests",
    type=WholeNumber(0, example=DEFAULT_LEAST_REQUESTS),
    metavar="N",
    default=DEFAULT_LEAST_REQUESTS,
    show_default=True,
    help="Requests that an objective's alert needs in its long window, so that a handful of errors is not an outage.",
)
trace_url = output_option(
    "--trace-url",
    metavar="URL",
    parse=parse_trace_url,
    help="Address of a trace, with {trace_id} in place of its id. Panels of latencies then show exemplars, and link to the trace "
    "whose id you type.",
)
prometheus = output_option(
    "--prometheus",
    type=click.Choice(["2", "3"]),
    help="Major version of Prometheus. Add the settings by which it takes native histograms, with --native-histograms.",
)
convert_histograms = output_option(
    "--convert-histograms",
    is_flag=True,
    help="Have Prometheus 3 make one series of the buckets of each classic histogram. Make dashboard and rules with "
    "--native-histograms then.",
)
kubernetes = output_option(
    "--kubernetes",
    is_flag=True,
    help="Write a PodMonitor, a ServiceMonitor and annotations instead. You need one of the three.",
)
output = output_option(
    "--output", type=FilePath(), metavar="FILE", help="Write to this file instead of standard output."
)
tests = output_option(
    "--tests", type=FilePath(), metavar="FILE", help="Also write tests of the rules, for promtool test rules."
)
