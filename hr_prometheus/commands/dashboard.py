"""The command that writes a Grafana dashboard."""

from __future__ import annotations

from typing import Any

import click

from hr_prometheus.commands import file_options, options, output_options
from hr_prometheus.commands.application import load_metrics
from hr_prometheus.commands.command import Command
from hr_prometheus.commands.outputs import write_outputs
from hr_prometheus.errors import ConfigurationError
from hr_prometheus.metrics import NO_EXEMPLARS
from hr_prometheus.settings import Settings


@click.command(cls=Command, short_help="Write a Grafana dashboard.")
@options.optional_target
@options.arguments
@output_options.output
@output_options.job
@options.app_dir
@options.metrics_path
@options.series
@options.exemplars
@output_options.trace_url
@options.loop_metrics
@options.client_metrics
@options.client_by_route
@file_options.files
def dashboard(job: str, output: str | None, trace_url: str | None, **values: Any) -> None:
    """Write a Grafana dashboard: of any application, or with a row for each route of TARGET; see `run` for TARGET and ARGS.

    The same options make the same file, so that it can be kept with the code. Needs grafana-foundation-sdk, which comes with
    the extra "dashboards".
    """
    application, rows, settings = load_metrics(Settings(**values))
    try:
        from hr_prometheus.observability.grafana import Traces, render_dashboard
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("grafana_foundation_sdk"):
            raise
        raise ConfigurationError(
            "dashboards are made with grafana-foundation-sdk, which is not installed. Install hr-prometheus with the "
            'extra "dashboards".'
        ) from None
    traces = Traces(settings.exemplars != NO_EXEMPLARS or trace_url is not None, trace_url)
    write_outputs({"--output": (output, render_dashboard(application, job, rows, traces))}, settings)
