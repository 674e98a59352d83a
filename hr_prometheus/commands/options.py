"""The arguments and options of the commands: each is a decorator, with the name of the option."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hr_prometheus.commands.parameters import (
    Argument,
    application_option,
    metrics_option,
    origins_of,
)
from hr_prometheus.commands.streams import print_warning
from hr_prometheus.commands.types import FilePath, OptionalChoice, Seconds, TargetName, WholeNumber
from hr_prometheus.labels.policies import DEFAULT_PATH_BUDGET, KEEP_VALUES, SAFE
from hr_prometheus.metric import LATENCY_BUCKETS
from hr_prometheus.metrics import (
    CLIENT_SESSIONS,
    DEFAULT_SLOW,
    DETAILS,
    EXEMPLAR_SOURCES,
    FULL,
    NO_EXEMPLARS,
)
from hr_prometheus.names import DEFAULT_NAMES, NAME_SETS
from hr_prometheus.settings import DEFAULT_BLOCKED_AFTER
from hr_prometheus.store.bounds import MODES
from hr_prometheus.written_forms import (
    parse_allowed_values,
    parse_buckets,
    parse_fixed_routes,
    parse_labels,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# -- the application

target = click.argument("target", cls=Argument, type=TargetName())
optional_target = click.argument("target", cls=Argument, type=TargetName(), required=False, default="")
arguments = click.argument("arguments", cls=Argument, nargs=-1, metavar="[-- ARGS...]", type=click.UNPROCESSED)
app_dir = application_option(
    "--app-dir",
    type=FilePath(),
    metavar="DIRECTORY",
    default=".",
    show_default="the current directory",
    help="Directory to import from; comes first on sys.path.",
)
start = application_option("--start", is_flag=True, help="Run the application's start-up first, which may add routes.")

# -- the metrics

metrics_path = metrics_option(
    "--metrics-path", metavar="PATH", default="/metrics", show_default=True, help="Path of the metrics route."
)
metrics_port = metrics_option(
    "--metrics-port",
    type=WholeNumber(0, 65535, example=9100),
    metavar="PORT",
    help="Serve the metrics on a port of their own, also while the event loop is blocked; 0 picks a free one.",
)
metrics_host = metrics_option(
    "--metrics-host", metavar="HOST", show_default="the application's", help="Address of the metrics port."
)
metrics_certfile = metrics_option(
    "--metrics-certfile",
    type=FilePath(),
    metavar="FILE",
    help="Certificate chain in PEM format for the metrics port, which then speaks HTTPS. Read again when it changes.",
)
metrics_keyfile = metrics_option(
    "--metrics-keyfile",
    type=FilePath(),
    metavar="FILE",
    help="Private key of that certificate, if it is in a file of its own.",
)
metrics_token_file = metrics_option(
    "--metrics-token-file",
    type=FilePath(),
    metavar="FILE",
    help="File with a token that every request to the metrics port has to have: Authorization: Bearer TOKEN. Read again when "
    "it changes.",
)
metrics_web_config = metrics_option(
    "--metrics-web-config",
    type=FilePath(),
    metavar="FILE",
    help="TLS, users with passwords, headers and a rate limit of the metrics port: a web configuration as of Prometheus' "
    "exporters (with the extra auth). Read again when it changes.",
)
file_sd = metrics_option(
    "--file-sd",
    type=FilePath(),
    metavar="DIRECTORY",
    help="Directory of files by which Prometheus discovers processes (file_sd_configs). While one is served, its file is there.",
)
status = metrics_option(
    "--status/--no-status",
    default=None,
    show_default="where only this machine can reach it",
    help="Serve the status page at / of the metrics port: charts and a table of all routes.",
)
status_path = metrics_option(
    "--status-path", metavar="PATH", help="Serve the status page at this path of the application, too: /-/status."
)
slow = metrics_option(
    "--slow",
    type=Seconds(example=0.5),
    default=DEFAULT_SLOW,
    show_default=f"{DEFAULT_SLOW:g}",
    metavar="SECONDS",
    help="From how many seconds on the status page lists a request as slow; 0 lists only those that failed.",
)
fixed_route = metrics_option(
    "--fixed-route",
    "fixed_routes",
    multiple=True,
    metavar="NAME=PARAM[,PARAM...]",
    parse=parse_fixed_routes,
    takes_table=True,
    help="Show these parameters of the route NAME as {PARAM} in the label path, so that their values share one "
    "series. NAME=* means all parameters of the route, * all of every route. Repeatable.",
)
allow_values = metrics_option(
    "--allow-values",
    multiple=True,
    metavar="NAME.PARAM=VALUE[,VALUE...]",
    parse=parse_allowed_values,
    takes_table=True,
    help="Show only these values of the parameter PARAM of the route NAME (* for all routes) in the label path, and "
    "any other as other. Repeatable.",
)
keep_values = metrics_option(
    "--keep-values",
    type=click.Choice(KEEP_VALUES),
    default=SAFE,
    show_default=True,
    help="Which values of other parameters the label path shows. safe hides as {PARAM} what looks like a secret or a "
    "person. all hides nothing.",
)
path_budget = metrics_option(
    "--path-budget",
    type=WholeNumber(0, example=DEFAULT_PATH_BUDGET),
    default=DEFAULT_PATH_BUDGET,
    show_default=True,
    metavar="N",
    help="Distinct path labels a route may have; further ones are recorded under the route's template. Take what "
    "your dashboards can tell apart: each label costs 65 series for each method (19 with --detail basic) and 3 kB "
    "of memory.",
)
exclude = metrics_option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Do not record requests whose path label matches this shell pattern, such as /health*. Repeatable.",
)
exclude_method = metrics_option(
    "--exclude-method",
    "exclude_methods",
    multiple=True,
    metavar="METHOD",
    help="Do not record requests with this method, such as OPTIONS. Repeatable.",
)
label = metrics_option(
    "--label",
    "extra_labels",
    multiple=True,
    metavar="NAME=SOURCE",
    parse=parse_labels,
    takes_table=True,
    help="Give the request metrics a label NAME: handler, route, const:VALUE, env:VARIABLE, or header:HEADER=VALUE,VALUE for "
    "these values of a header (query:, cookie:, match:, host: likewise). Any other value is shown as other. Repeatable.",
)
detail = metrics_option(
    "--detail",
    type=click.Choice(DETAILS),
    show_default=FULL,
    help="How much is measured: full, or only the counts, latencies and requests in progress.",
)
buckets = metrics_option(
    "--buckets",
    multiple=True,
    metavar="[NAME=]SECONDS,...",
    show_default=",".join(f"{bound:g}" for bound in LATENCY_BUCKETS),
    parse=parse_buckets,
    takes_numbers=True,
    takes_table=True,
    help="Upper bounds of the latency histogram: of the application, or of its route NAME. Repeatable.",
)
names = metrics_option(
    "--names",
    type=click.Choice(list(NAME_SETS)),
    multiple=True,
    default=DEFAULT_NAMES,
    show_default=True,
    help="What the request metrics are called: request_count_total and so on (seed), http_requests_total and so on (http), or "
    "as OpenTelemetry has them (otel). Repeatable, for several at once.",
)
latency_by_status = metrics_option(
    "--latency-by-status",
    is_flag=True,
    help="Give latencies the label outcome, error for a status from 500 on and else ok, so that quick errors do not hide slow "
    "answers.",
)

exemplars = metrics_option(
    "--exemplars",
    type=click.Choice(EXEMPLAR_SOURCES),
    default=NO_EXEMPLARS,
    show_default=True,
    help="Attach a request's trace to latencies and errors. traceparent: from that header, if it is sampled. otel: from the "
    "OpenTelemetry span (with the extra otel).",
)


native_histograms = metrics_option(
    "--native-histograms",
    type=OptionalChoice(MODES),
    metavar="[both]",
    help="Keep the histograms of hr-prometheus as native ones as well. A Prometheus that asks for these gets one series for each. With "
    "--native-histograms=both it gets the classic ones, too. Other scrapes have the classic ones.",
)


def _check_prefix(ctx: click.Context, _option: click.Parameter, prefix: str) -> str:
    if prefix.isidentifier() and not prefix.endswith("_") and not ctx.resilient_parsing:
        typed = origins_of(ctx)["metric_prefix"].quote()
        print_warning(f'{typed}: the metrics are named "{prefix}request_latency" and so on. Did you mean "{prefix}_"?')
    return prefix


metric_prefix = metrics_option(
    "--metric-prefix",
    metavar="PREFIX",
    default="",
    callback=_check_prefix,
    help="Goes before the names of the request metrics.",
)
monitor = metrics_option(
    "--monitor", metavar="MODULE:CLASS", help="Record with this monitor instead of the default one."
)

loop_metrics = metrics_option(
    "--loop-metrics/--no-loop-metrics",
    default=True,
    show_default="loop-metrics",
    help="Measure the event loop: how late it is, what it uses, what blocks it, and how long requests hold it.",
)
blocked_after = metrics_option(
    "--blocked-after",
    type=Seconds(example=DEFAULT_BLOCKED_AFTER),
    metavar="SECONDS",
    show_default=f"{DEFAULT_BLOCKED_AFTER:g}",
    help="How long a request or a task may hold the event loop in one step before it is a block; 0 counts none.",
)
client_metrics = metrics_option(
    "--client-metrics",
    type=OptionalChoice(CLIENT_SESSIONS),
    help="Measure outgoing requests: of the ClientSessions in app[KEY] (kept, also without a value), or of all (all).",
)
client_by_route = metrics_option(
    "--client-by-route",
    is_flag=True,
    help="Give the metrics of outgoing requests the label path of the request that is served meanwhile.",
)


def series(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that decide the names, the labels and the number of an application's series."""
    of_labels = fixed_route, allow_values, keep_values, path_budget, exclude, exclude_method, label
    decorators = *of_labels, detail, buckets, latency_by_status, native_histograms, names, metric_prefix
    for decorator in reversed(decorators):  # as if they stood above the function one by one
        function = decorator(function)
    return function
