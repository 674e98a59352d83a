"""The command that writes a scrape configuration."""

from __future__ import annotations

from typing import Any

import click

from hr_prometheus.commands import options
from hr_prometheus.commands.errors import reported
from hr_prometheus.commands.outputs import write_all
from hr_prometheus.commands.parameters import Command, metrics_option


@click.command("scrape-config", cls=Command, short_help="Write what makes Prometheus scrape an application.")
@options.addresses
@options.job
@metrics_option("--kubernetes", is_flag=True, help="Write a PodMonitor and annotations instead.")
@options.output
def scrape_config(job: str, output: str | None, *, kubernetes: bool, **values: Any) -> None:
    """Write the scrape_configs of a Prometheus for an application that is run with the same options."""
    with reported():
        from hr_prometheus.observability import scrape_config as module

        settings = options.settings_of({**values, "target": "", "buckets": None, "fixed_route": (), "allow_values": ()})
        text = (module.kubernetes if kubernetes else module.scrape_config)(settings, job)
        write_all({"--output": output}, [text], settings)
