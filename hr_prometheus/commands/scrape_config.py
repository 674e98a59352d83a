"""The command that writes a scrape configuration."""

from __future__ import annotations

from typing import Any

import click

from hr_prometheus.commands import file_options, options, output_options, server_options
from hr_prometheus.commands.command import Command
from hr_prometheus.commands.outputs import write_outputs
from hr_prometheus.settings import Settings


@click.command("scrape-config", cls=Command, short_help="Write what makes Prometheus scrape an application.")
@output_options.output
@output_options.kubernetes
@options.file_sd
@output_options.prometheus
@output_options.convert_histograms
@output_options.job
@server_options.host
@server_options.port
@server_options.unix_path
@server_options.certfile
@server_options.keyfile
@options.metrics_path
@options.metrics_port
@options.metrics_host
@options.metrics_certfile
@options.metrics_keyfile
@options.metrics_token_file
@options.metrics_web_config
@options.native_histograms
@file_options.files
def scrape_config(
    *, kubernetes: bool, output: str | None, job: str, prometheus: str | None, convert_histograms: bool, **values: Any
) -> None:
    """Write the scrape_configs of a Prometheus for an application that is run with the same options."""
    from hr_prometheus.observability.scrape_config import render_pod_monitor, render_scrape_config

    settings = Settings(target="", **values)
    render = render_pod_monitor if kubernetes else render_scrape_config
    write_outputs({"--output": (output, render(settings, job, prometheus, convert=convert_histograms))}, settings)
