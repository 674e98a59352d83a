"""The options of the commands, each a decorator with the name of its option, and the settings that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hr_prometheus.commands.parameters import Seconds, WholeNumber, metrics_option, said, server_option, workers_option
from hr_prometheus.commands.streams import say
from hr_prometheus.labels.policies import DEFAULT_PATH_BUDGET, KEEP_VALUES, SAFE
from hr_prometheus.metrics import DETAILS, FULL, LATENCY_BUCKETS
from hr_prometheus.server.loops import LOOPS
from hr_prometheus.settings import (
    DEFAULT_BACKLOG,
    DEFAULT_HOST,
    DEFAULT_KEEPALIVE_TIMEOUT,
    DEFAULT_LOG_LEVEL,
    DEFAULT_PORT,
    DEFAULT_SHUTDOWN_TIMEOUT,
    DEFAULT_WORKER_TIMEOUT,
    Settings,
    parse_allowed_values,
    parse_buckets,
    parse_fixed_routes,
    parse_mode,
    parse_workers,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hr_prometheus.commands.parameters import Decorator

target = click.argument("target")
target_if_any = click.argument("target", required=False, default="")
arguments = click.argument("arguments", nargs=-1, metavar="[-- ARGS...]", type=click.UNPROCESSED)


def together(*decorators: Decorator) -> Decorator:
    """Return one decorator for several, which ``--help`` shows in this order."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for each in reversed(decorators):
            function = each(function)
        return function

    return decorate


host = server_option(
    "-H", "--host", metavar="HOST", show_default=DEFAULT_HOST, help="Address or name to listen on; 0.0.0.0 for all."
)
port = server_option(
    "-P",
    "--port",
    type=WholeNumber(0, 65535, example=DEFAULT_PORT),
    metavar="PORT",
    show_default=str(DEFAULT_PORT),
    help="Port to listen on; 0 picks a free one and prints it.",
)
unix_path = server_option(
    "-U",
    "--unix-path",
    metavar="PATH",
    help="Unix socket to listen on: instead of a port, or as well if --host or --port is given.",
)
unix_mode = server_option(
    "--unix-mode",
    metavar="MODE",
    help="Permissions of the Unix socket, in octal digits, such as 660; by default those that the umask leaves.",
)
backlog = server_option(
    "--backlog",
    type=WholeNumber(1, 65535, example=DEFAULT_BACKLOG),
    metavar="N",
    show_default=str(DEFAULT_BACKLOG),
    help="Connections that may wait to be accepted.",
)
reuse_port = server_option(
    "--reuse-port/--no-reuse-port", default=None, help="Let other processes listen on the same port (SO_REUSEPORT)."
)
shutdown_timeout = server_option(
    "--shutdown-timeout",
    type=Seconds(example=DEFAULT_SHUTDOWN_TIMEOUT),
    metavar="SECONDS",
    show_default=f"{DEFAULT_SHUTDOWN_TIMEOUT:g}",
    help="How long a stop waits for requests in progress, in all.",
)
keepalive_timeout = server_option(
    "--keepalive-timeout",
    type=Seconds(example=DEFAULT_KEEPALIVE_TIMEOUT),
    metavar="SECONDS",
    show_default=f"{DEFAULT_KEEPALIVE_TIMEOUT:g}",
    help="How long an idle connection stays open.",
)
access_log = server_option(
    "--access-log/--no-access-log",
    default=None,
    show_default="no-access-log",
    help="Log a line for each request.",
)
log_level = server_option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False),
    show_default=DEFAULT_LOG_LEVEL,
    help="Least level that is logged.",
)
loop = server_option(
    "--loop",
    type=click.Choice(LOOPS),
    show_default="auto",
    help="Event loop; auto is uvloop if that is installed (the extra uvloop), else asyncio.",
)
certfile = server_option("--certfile", metavar="FILE", help="Certificate chain in PEM format; serves HTTPS.")
keyfile = server_option(
    "--keyfile", metavar="FILE", help="Private key of the certificate, if it is in a file of its own."
)
app_dir = server_option(
    "--app-dir",
    metavar="DIRECTORY",
    default=".",
    show_default="the current directory",
    help="Directory to import from; comes first on sys.path.",
)
workers = workers_option(
    "-w",
    "--workers",
    metavar="N|auto",
    show_default="one process, without a supervisor",
    help="Serve with N processes, which a supervisor keeps running; auto is one for each processor.",
)
worker_timeout = workers_option(
    "--worker-timeout",
    type=Seconds(example=DEFAULT_WORKER_TIMEOUT),
    metavar="SECONDS",
    show_default=f"{DEFAULT_WORKER_TIMEOUT:g}",
    help="Replace a worker whose event loop has been blocked for so long; 0 never does.",
)
max_requests = workers_option(
    "--max-requests",
    type=WholeNumber(1, example=10000),
    metavar="N",
    help="Replace a worker after N requests and up to a tenth more, drawn at random.",
)
metrics_path = metrics_option(
    "--metrics-path", metavar="PATH", default="/metrics", show_default=True, help="Path of the metrics route."
)
metrics_port = metrics_option(
    "--metrics-port",
    type=WholeNumber(0, 65535, example=9100),
    metavar="PORT",
    help="Serve the metrics on a port of their own and add no route to the application; 0 picks a free one.",
)
metrics_host = metrics_option(
    "--metrics-host", metavar="HOST", show_default="the application's", help="Address of the metrics port."
)
fixed_route = metrics_option(
    "--fixed-route",
    "fixed_route",
    multiple=True,
    metavar="NAME=PARAM[,PARAM...]",
    help="Show these parameters of the route NAME as {PARAM} in the label path, so that their values share one "
    "series. NAME=* means all parameters of the route, * all of every route. Repeatable.",
)
allow_values = metrics_option(
    "--allow-values",
    multiple=True,
    metavar="NAME.PARAM=VALUE[,VALUE...]",
    help="Show only these values of the parameter PARAM of the route NAME (* for all routes) in the label path, and "
    "any other as other. Repeatable.",
)
keep_values = metrics_option(
    "--keep-values",
    type=click.Choice(KEEP_VALUES),
    default=SAFE,
    show_default=True,
    help="Which values of other parameters the label path shows: safe hides as {PARAM} what looks like a secret or a "
    "person, all hides nothing.",
)
path_budget = metrics_option(
    "--path-budget",
    type=WholeNumber(0, example=DEFAULT_PATH_BUDGET),
    default=DEFAULT_PATH_BUDGET,
    show_default=True,
    metavar="N",
    help="Distinct path labels a route may have; further ones are recorded under the route's template. Take what "
    "your dashboards can tell apart: each label costs 64 series for each method (19 with --detail basic) and 2 kB "
    "of memory.",
)
exclude = metrics_option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Do not record requests whose path label matches this shell pattern, such as /health*. Repeatable.",
)
buckets = metrics_option(
    "--buckets",
    metavar="SECONDS,...",
    show_default=",".join(f"{bound:g}" for bound in LATENCY_BUCKETS),
    help="Upper bounds of the latency histogram.",
)
metric_prefix = metrics_option(
    "--metric-prefix", metavar="PREFIX", default="", help="Goes before the names of the request metrics."
)
detail = metrics_option(
    "--detail",
    type=click.Choice(DETAILS),
    show_default=FULL,
    help="How much is measured: full, or only the counts, latencies and requests in progress.",
)
monitor = metrics_option(
    "--monitor", metavar="MODULE:CLASS", help="Record with this monitor instead of the default one."
)
job = metrics_option(
    "--job",
    metavar="NAME",
    default="hr-prometheus",
    show_default=True,
    help="Name of the job under which Prometheus scrapes the application.",
)
output = metrics_option("--output", metavar="FILE", help="Write to this file instead of standard output.")

#: Where an application and its metrics are served.
addresses = together(host, port, unix_path, certfile, metrics_path, metrics_port, metrics_host)
#: What of the options of ``run`` changes the labels and the number of an application's series, and their names.
application = together(
    app_dir, fixed_route, allow_values, keep_values, path_budget, exclude, detail, buckets, metric_prefix
)


def settings_of(options: dict[str, Any]) -> Settings:
    """Return the settings that the options of a command say."""
    buckets, workers, mode = options.pop("buckets"), options.pop("workers", None), options.pop("unix_mode", None)
    settings = Settings(
        unix_mode=None if mode is None else parse_mode(mode),
        workers=None if workers is None else parse_workers(workers),
        fixed_routes=parse_fixed_routes(options.pop("fixed_route")),
        allow_values=parse_allowed_values(options.pop("allow_values")),
        buckets=LATENCY_BUCKETS if buckets is None else parse_buckets(buckets),
        **options,
    )
    prefix = settings.metric_prefix
    if prefix.isidentifier() and not prefix.endswith("_"):
        typed = said("metric_prefix", click.get_current_context())
        say("Warning", f'{typed}: the metrics are named "{prefix}request_latency" and so on. Did you mean "{prefix}_"?')
    return settings
