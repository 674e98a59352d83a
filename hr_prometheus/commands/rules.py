"""The command that writes recording and alerting rules."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from hr_prometheus.commands import file_options, options, output_options
from hr_prometheus.commands.application import load_metrics
from hr_prometheus.commands.command import Command
from hr_prometheus.commands.outputs import write_outputs
from hr_prometheus.errors import ConfigurationError
from hr_prometheus.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal


@click.command(cls=Command, short_help="Write recording and alerting rules for Prometheus.")
@options.optional_target
@options.arguments
@output_options.objective
@output_options.latency
@output_options.least_requests
@output_options.output
@output_options.tests
@output_options.job
@options.app_dir
@options.metrics_path
@options.series
@options.loop_metrics
@options.client_metrics
@options.client_by_route
@file_options.files
def rules(
    *,
    objectives: Mapping[str, Decimal],
    latencies: dict[str, float],
    least_requests: int,
    output: str | None,
    tests: str | None,
    job: str,
    **values: Any,
) -> None:
    """Write rules for Prometheus: of any application, or with objectives for routes of TARGET; see `run` for TARGET and ARGS.

    They record rates, errors and latencies of each route. They alert on missed objectives, a blocked event loop, folded labels,
    failing scrapes and restarting workers. A 5xx is an error. A 499 is not: the client has left.
    """
    if tests is not None and output is None:
        raise ConfigurationError("--tests was given without --output. The tests name the file of the rules.")
    from hr_prometheus.observability.objectives import ServiceLevels, objectives_of
    from hr_prometheus.observability.rule_tests import render_rule_tests
    from hr_prometheus.observability.rules import render_rules

    application, rows, settings = load_metrics(Settings(**values))
    if tests is not None and application.native_histograms:
        raise ConfigurationError(
            "--tests was given with native histograms, which promtool's tests cannot simulate. Leave --tests out."
        )
    levels = ServiceLevels(
        application=application,
        job=job,
        objectives=objectives_of(
            objectives,
            rows,
            settings.metrics_path,
            latencies=latencies,
            buckets=None if application.native_histograms else application.buckets,
        ),
        least_requests=least_requests,
    )
    files = {"--output": (output, render_rules(levels))}
    if tests is not None and output is not None:
        rule_file = os.path.relpath(output, os.path.dirname(tests) or ".")
        files["--tests"] = (tests, render_rule_tests(levels, rule_file))
    write_outputs(files, settings)
