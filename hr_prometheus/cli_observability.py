"""The commands that make files for Prometheus and Grafana: dashboard, rules and scrape-config."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from hr_prometheus.cli import fail, main, settings_of, shared_options
from hr_prometheus.cli_options import Command, Seconds, WholeNumber, metrics_option
from hr_prometheus.cli_streams import say, show
from hr_prometheus.config import DEFAULT_LEAST_REQUESTS
from hr_prometheus.errors import ConfigurationError, HrPrometheusError
from hr_prometheus.interrupts import INTERRUPTED
from hr_prometheus.outputs import check_outputs, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hr_prometheus.config import Settings
    from hr_prometheus.queries import Source
    from hr_prometheus.routes import Row

# What of `run` changes the names and the labels of metrics.
_of_an_application = shared_options(
    "app_dir",
    "fixed_route",
    "allow_values",
    "keep_values",
    "path_budget",
    "exclude",
    "detail",
    "buckets",
    "metric_prefix",
    "metrics_path",
)
_target = click.argument("target", required=False, default="")
_arguments = click.argument("arguments", nargs=-1, metavar="[-- ARGS...]", type=click.UNPROCESSED)
_job = metrics_option(
    "--job",
    metavar="NAME",
    default="hr-prometheus",
    show_default=True,
    help="Name of the job under which Prometheus scrapes the application.",
)
_output = metrics_option("--output", metavar="FILE", help="Write to this file instead of standard output.")


@main.command(cls=Command, short_help="Write a Grafana dashboard.")
@_target
@_arguments
@_of_an_application
@_job
@_output
def dashboard(job: str, output: str | None, **options: Any) -> None:
    """Write a Grafana dashboard: of any application, or with a row for each route of TARGET; see `run` for TARGET and ARGS.

    The same options make the same file, so that it can be kept with the code. Needs grafana-foundation-sdk, which comes with
    the extra "dashboards".
    """
    with _errors():
        source, table, settings = _application(options)
        try:
            from hr_prometheus import dashboards
        except ModuleNotFoundError as error:
            if not str(error.name).startswith("grafana_foundation_sdk"):
                raise
            raise ConfigurationError(
                "dashboards are made with grafana-foundation-sdk, which is not installed. Install hr-prometheus with the "
                'extra "dashboards".'
            ) from None
        _write({"--output": output}, [dashboards.grafana_dashboard(source, job, table)], settings)


@main.command(cls=Command, short_help="Write recording and alerting rules for Prometheus.")
@_target
@_arguments
@_of_an_application
@_job
@metrics_option(
    "--objective",
    multiple=True,
    metavar="[NAME=]PERCENT",
    show_default="99.9",
    help="Percentage of the requests that must go well: of the application, or of its route NAME. Repeatable.",
)
@metrics_option(
    "--latency",
    type=Seconds(min_open=True, example=0.5),
    metavar="SECONDS",
    help="In what time as many requests must be answered; one of --buckets. Without it no alert looks at latencies.",
)
@metrics_option(
    "--least-requests",
    type=WholeNumber(0, example=DEFAULT_LEAST_REQUESTS),
    metavar="N",
    default=DEFAULT_LEAST_REQUESTS,
    show_default=True,
    help="Requests that an objective's alert needs in its long window, so that a handful of errors is no outage.",
)
@_output
@metrics_option("--tests", metavar="FILE", help="Also write tests of the rules, for promtool test rules.")
def rules(job: str, objective: tuple[str, ...], output: str | None, tests: str | None, **options: Any) -> None:
    """Write rules for Prometheus: of any application, or with objectives for routes of TARGET; see `run` for TARGET and ARGS.

    They record rates, errors and latencies of each route, and alert when an objective is being missed, when labels are
    folded, when scrapes fail and when workers restart. A 5xx is an error. A 499 is none: the client has left.
    """
    with _errors():
        if tests is not None and output is None:
            raise ConfigurationError("--tests was given without --output. The tests name the file of the rules.")
        from hr_prometheus import rule_tests
        from hr_prometheus import rules as module
        from hr_prometheus.objectives import objectives, parse_objectives

        budgets = parse_objectives(objective)
        latency, least_requests = options.pop("latency"), options.pop("least_requests")
        source, table, settings = _application(options)
        found = objectives(budgets, table, settings.metrics_path)
        wanted = {"buckets": settings.buckets, "latency": latency, "least_requests": least_requests}
        texts = [module.rules(source, job, found, **wanted)]
        if tests is not None and output is not None:
            rule_file = os.path.relpath(output, os.path.dirname(tests) or ".")
            texts.append(rule_tests.rule_tests(source, job, found, **wanted, rule_file=rule_file))
        _write({"--output": output, "--tests": tests}, texts, settings)


@main.command("scrape-config", cls=Command, short_help="Write what makes Prometheus scrape an application.")
@shared_options("host", "port", "unix_path", "certfile", "metrics_path", "metrics_port", "metrics_host")
@_job
@metrics_option("--kubernetes", is_flag=True, help="Write a PodMonitor and annotations instead.")
@_output
def scrape_config(job: str, output: str | None, *, kubernetes: bool, **options: Any) -> None:
    """Write the scrape_configs of a Prometheus for an application that is run with the same options."""
    with _errors():
        from hr_prometheus import scrape_config as module

        settings = settings_of({**options, "target": "", "buckets": None, "fixed_route": (), "allow_values": ()})
        text = (module.kubernetes if kubernetes else module.scrape_config)(settings, job)
        _write({"--output": output}, [text], settings)


def _application(options: dict[str, Any]) -> tuple[Source, list[Row], Settings]:
    """Return the metrics, the routes (none without a target) and the settings of what the options of a command name."""
    from hr_prometheus import routes
    from hr_prometheus.catalog import FULL
    from hr_prometheus.queries import Source

    settings, table = settings_of(options), []
    if settings.target:
        with contextlib.redirect_stdout(sys.stderr):  # what the application prints is no part of the file
            app = routes.load_application(settings)
        settings = routes.settings_of(app, settings)
        table = routes.rows(app, settings)
        for text in routes.idle_exclusions(app, settings):
            say("Warning", text)
    return Source(settings.metric_prefix, detail=settings.detail or FULL), table, settings


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except HrPrometheusError as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _write(outputs: dict[str, str | None], texts: list[str], settings: Settings) -> None:
    """Write each text to the file that its option names, the first one to standard output if it names none."""
    script = settings.target.rpartition(":")[0] or settings.target
    check_outputs(outputs, {"the target": script, "--certfile": settings.certfile, "--keyfile": settings.keyfile})
    for path, text in zip(outputs.values(), texts, strict=False):
        if path is None:
            show(text, nl=False)
        else:
            write(path, text)
