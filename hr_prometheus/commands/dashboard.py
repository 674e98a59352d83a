"""The command that writes a Grafana dashboard."""

from __future__ import annotations

from typing import Any

import click

from hr_prometheus.commands import options
from hr_prometheus.commands.application import application_of
from hr_prometheus.commands.errors import reported
from hr_prometheus.commands.outputs import write_all
from hr_prometheus.commands.parameters import Command
from hr_prometheus.errors import ConfigurationError


@click.command(cls=Command, short_help="Write a Grafana dashboard.")
@options.target_if_any
@options.arguments
@options.application
@options.metrics_path
@options.job
@options.output
def dashboard(job: str, output: str | None, **values: Any) -> None:
    """Write a Grafana dashboard: of any application, or with a row for each route of TARGET; see `run` for TARGET and ARGS.

    The same options make the same file, so that it can be kept with the code. Needs grafana-foundation-sdk, which comes with
    the extra "dashboards".
    """
    with reported():
        source, table, settings = application_of(values)
        try:
            from hr_prometheus.observability import grafana
        except ModuleNotFoundError as error:
            if not str(error.name).startswith("grafana_foundation_sdk"):
                raise
            raise ConfigurationError(
                "dashboards are made with grafana-foundation-sdk, which is not installed. Install hr-prometheus with the "
                'extra "dashboards".'
            ) from None
        write_all({"--output": output}, [grafana.grafana_dashboard(source, job, table)], settings)
