"""The command line: words, flags and exit codes. The only module that imports click, prints or exits."""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import TYPE_CHECKING, Any

import click

from hr_prometheus import __version__, interrupts
from hr_prometheus.catalog import DETAILS, FULL, LATENCY_BUCKETS
from hr_prometheus.cli_errors import sentence
from hr_prometheus.cli_options import (
    Command,
    Seconds,
    WholeNumber,
    metrics_option,
    said,
    server_option,
    workers_option,
)
from hr_prometheus.cli_streams import Closed, Group, color, say
from hr_prometheus.config import (
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
from hr_prometheus.errors import ApplicationError, ConfigurationError, HrPrometheusError, ServingError
from hr_prometheus.loops import LOOPS
from hr_prometheus.policies import DEFAULT_PATH_BUDGET, KEEP_VALUES, SAFE

if TYPE_CHECKING:
    from collections.abc import Callable

#: What the exit code says of each error; 0 is a stop, and 130 an interruption before it served.
EXIT_CODES: dict[type[HrPrometheusError], int] = {ServingError: 1, ConfigurationError: 2, ApplicationError: 3}


def shared_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of these names that ``run`` has."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        shared = [parameter for parameter in run.params if parameter.name in names]
        function.__click_params__ = [*reversed(shared), *getattr(function, "__click_params__", ())]  # type: ignore[attr-defined]
        return function

    return decorate


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="hr-prometheus")
def main() -> None:
    """Prometheus metrics for any aiohttp server: true, bounded and almost free."""


@main.command(cls=Command, short_help="Serve an application, with its metrics.")
@click.argument("target")
@click.argument("arguments", nargs=-1, metavar="[-- ARGS...]", type=click.UNPROCESSED)
@server_option(
    "-H", "--host", metavar="HOST", show_default=DEFAULT_HOST, help="Address or name to listen on; 0.0.0.0 for all."
)
@server_option(
    "-P",
    "--port",
    type=WholeNumber(0, 65535, example=DEFAULT_PORT),
    metavar="PORT",
    show_default=str(DEFAULT_PORT),
    help="Port to listen on; 0 picks a free one and prints it.",
)
@server_option(
    "-U",
    "--unix-path",
    metavar="PATH",
    help="Unix socket to listen on: instead of a port, or as well if --host or --port is given.",
)
@server_option(
    "--unix-mode",
    metavar="MODE",
    help="Permissions of the Unix socket, in octal digits, such as 660; by default those that the umask leaves.",
)
@server_option(
    "--backlog",
    type=WholeNumber(1, 65535, example=DEFAULT_BACKLOG),
    metavar="N",
    show_default=str(DEFAULT_BACKLOG),
    help="Connections that may wait to be accepted.",
)
@server_option(
    "--reuse-port/--no-reuse-port", default=None, help="Let other processes listen on the same port (SO_REUSEPORT)."
)
@server_option(
    "--shutdown-timeout",
    type=Seconds(example=DEFAULT_SHUTDOWN_TIMEOUT),
    metavar="SECONDS",
    show_default=f"{DEFAULT_SHUTDOWN_TIMEOUT:g}",
    help="How long a stop waits for requests in progress, in all.",
)
@server_option(
    "--keepalive-timeout",
    type=Seconds(example=DEFAULT_KEEPALIVE_TIMEOUT),
    metavar="SECONDS",
    show_default=f"{DEFAULT_KEEPALIVE_TIMEOUT:g}",
    help="How long an idle connection stays open.",
)
@server_option(
    "--access-log/--no-access-log",
    default=None,
    show_default="no-access-log",
    help="Log a line for each request.",
)
@server_option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False),
    show_default=DEFAULT_LOG_LEVEL,
    help="Least level that is logged.",
)
@server_option(
    "--loop",
    type=click.Choice(LOOPS),
    show_default="auto",
    help="Event loop; auto is uvloop if that is installed (the extra uvloop), else asyncio.",
)
@server_option("--certfile", metavar="FILE", help="Certificate chain in PEM format; serves HTTPS.")
@server_option("--keyfile", metavar="FILE", help="Private key of the certificate, if it is in a file of its own.")
@server_option(
    "--app-dir",
    metavar="DIRECTORY",
    default=".",
    show_default="the current directory",
    help="Directory to import from; comes first on sys.path.",
)
@workers_option(
    "-w",
    "--workers",
    metavar="N|auto",
    show_default="one process, without a supervisor",
    help="Serve with N processes, which a supervisor keeps running; auto is one for each processor.",
)
@workers_option(
    "--worker-timeout",
    type=Seconds(example=DEFAULT_WORKER_TIMEOUT),
    metavar="SECONDS",
    show_default=f"{DEFAULT_WORKER_TIMEOUT:g}",
    help="Replace a worker whose event loop has been blocked for so long; 0 never does.",
)
@workers_option(
    "--max-requests",
    type=WholeNumber(1, example=10000),
    metavar="N",
    help="Replace a worker after N requests and up to a tenth more, drawn at random.",
)
@metrics_option(
    "--metrics-path", metavar="PATH", default="/metrics", show_default=True, help="Path of the metrics route."
)
@metrics_option(
    "--metrics-port",
    type=WholeNumber(0, 65535, example=9100),
    metavar="PORT",
    help="Serve the metrics on a port of their own and add no route to the application; 0 picks a free one.",
)
@metrics_option("--metrics-host", metavar="HOST", show_default="the application's", help="Address of the metrics port.")
@metrics_option(
    "--fixed-route",
    "fixed_route",
    multiple=True,
    metavar="NAME=PARAM[,PARAM...]",
    help="Show these parameters of the route NAME as {PARAM} in the label path, so that their values share one "
    "series. NAME=* means all parameters of the route, * all of every route. Repeatable.",
)
@metrics_option(
    "--allow-values",
    multiple=True,
    metavar="NAME.PARAM=VALUE[,VALUE...]",
    help="Show only these values of the parameter PARAM of the route NAME (* for all routes) in the label path, and "
    "any other as other. Repeatable.",
)
@metrics_option(
    "--keep-values",
    type=click.Choice(KEEP_VALUES),
    default=SAFE,
    show_default=True,
    help="Which values of other parameters the label path shows: safe hides as {PARAM} what looks like a secret or a "
    "person, all hides nothing.",
)
@metrics_option(
    "--path-budget",
    type=WholeNumber(0, example=DEFAULT_PATH_BUDGET),
    default=DEFAULT_PATH_BUDGET,
    show_default=True,
    metavar="N",
    help="Distinct path labels a route may have; further ones are recorded under the route's template. Take what "
    "your dashboards can tell apart: each label costs 64 series for each method (19 with --detail basic) and 2 kB "
    "of memory.",
)
@metrics_option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Do not record requests whose path label matches this shell pattern, such as /health*. Repeatable.",
)
@metrics_option(
    "--buckets",
    metavar="SECONDS,...",
    show_default=",".join(f"{bound:g}" for bound in LATENCY_BUCKETS),
    help="Upper bounds of the latency histogram.",
)
@metrics_option("--metric-prefix", metavar="PREFIX", default="", help="Goes before the names of the request metrics.")
@metrics_option(
    "--detail",
    type=click.Choice(DETAILS),
    show_default=FULL,
    help="How much is measured: full, or only the counts, latencies and requests in progress.",
)
@metrics_option("--monitor", metavar="MODULE:CLASS", help="Record with this monitor instead of the default one.")
def run(**options: Any) -> None:
    """Serve TARGET, with Prometheus metrics of every request.

    TARGET is one of

    \b
      module:attribute      an application, or its factory
      path/to/file.py:attr  the same, in a file
      path/to/script.py     a script, or its module name

    A factory is a function, sync or async, that makes an aiohttp.web.Application. It is called with nothing, or with the
    list of ARGS if it takes one argument. A script calls web.run_app itself. Its own host, port and other arguments of
    run_app hold unless an option here says otherwise.

    A repeatable option's variable holds its values separated by spaces. Exit codes: 0 stopped, 1 an address
    or file was refused, 2 wrong usage, 3 the application failed, 130 interrupted before it served.
    """
    try:
        settings = settings_of(options)
        if isinstance(sys.stdout, Closed):
            sys.stdout = None  # the application's prints go nowhere, as they would without us
        # After the options, which may be all that is wrong.
        module = "hr_prometheus.server" if settings.workers is None else "hr_prometheus.workers.supervisor"
        importlib.import_module(module).run(settings, _announce)
    except HrPrometheusError as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(interrupts.exit_code())


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


def _announce(line: str) -> None:
    output: Any = sys.stdout or Closed()
    try:
        click.echo(line, file=output, color=color())
    except OSError as error:  # it serves all the same
        main.refuse(error)
    except (ValueError, AttributeError):  # the application has closed or replaced it
        pass


def fail(error: HrPrometheusError) -> None:
    """Print *error*, behind the traceback of the application if it is that which failed, and exit."""
    if isinstance(error, ApplicationError) and error.__cause__ is not None:
        traceback.print_exception(error.__cause__)
    say("Error", sentence(error))
    sys.exit(next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind)))
