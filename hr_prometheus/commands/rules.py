"""The command that writes recording and alerting rules."""

from __future__ import annotations

import os
from typing import Any

import click

from hr_prometheus.commands import options
from hr_prometheus.commands.application import application_of
from hr_prometheus.commands.errors import reported
from hr_prometheus.commands.outputs import write_all
from hr_prometheus.commands.parameters import Command, Seconds, WholeNumber, metrics_option
from hr_prometheus.errors import ConfigurationError
from hr_prometheus.settings import DEFAULT_LEAST_REQUESTS


@click.command(cls=Command, short_help="Write recording and alerting rules for Prometheus.")
@options.target_if_any
@options.arguments
@options.application
@options.metrics_path
@options.job
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
@options.output
@metrics_option("--tests", metavar="FILE", help="Also write tests of the rules, for promtool test rules.")
def rules(job: str, objective: tuple[str, ...], output: str | None, tests: str | None, **values: Any) -> None:
    """Write rules for Prometheus: of any application, or with objectives for routes of TARGET; see `run` for TARGET and ARGS.

    They record rates, errors and latencies of each route, and alert when an objective is being missed, when labels are
    folded, when scrapes fail and when workers restart. A 5xx is an error. A 499 is none: the client has left.
    """
    with reported():
        if tests is not None and output is None:
            raise ConfigurationError("--tests was given without --output. The tests name the file of the rules.")
        from hr_prometheus.observability import rule_tests
        from hr_prometheus.observability import rules as module
        from hr_prometheus.observability.objectives import objectives, parse_objectives

        budgets = parse_objectives(objective)
        latency, least_requests = values.pop("latency"), values.pop("least_requests")
        source, table, settings = application_of(values)
        found = objectives(budgets, table, settings.metrics_path)
        wanted = {"buckets": settings.buckets, "latency": latency, "least_requests": least_requests}
        texts = [module.rules(source, job, found, **wanted)]
        if tests is not None and output is not None:
            rule_file = os.path.relpath(output, os.path.dirname(tests) or ".")
            texts.append(rule_tests.rule_tests(source, job, found, **wanted, rule_file=rule_file))
        write_all({"--output": output, "--tests": tests}, texts, settings)
