"""The command that shows the routes of an application."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from typing import Any

import click

from hr_prometheus.commands import options
from hr_prometheus.commands.application import route_table
from hr_prometheus.commands.errors import reported
from hr_prometheus.commands.parameters import Command, WholeNumber, metrics_option, said
from hr_prometheus.commands.streams import say, show

_TOO_MANY_SERIES = 4


@click.command(cls=Command, short_help="Show the routes of an application as the metrics will see them.")
@options.target
@options.arguments
@options.application
@metrics_option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="A table for people or JSON for programs.",
)
@metrics_option(
    "--max-series",
    type=WholeNumber(0, example=3000),
    metavar="N",
    help="Exit with 4 if there can be more series than this.",
)
@metrics_option("--start", is_flag=True, help="Run the application's start-up first, which may add routes.")
def routes(**values: Any) -> None:
    """Show the route table of TARGET as the metrics will see it; see `run` for TARGET and ARGS.

    The application is made but not started, unless --start is given. For each route: its methods, its name, the label
    that its requests are recorded under, with <NAME> for a parameter whose values are kept, the policy of each
    parameter, and how many path labels and series there can be at worst. It is a table where that fits the terminal, or
    COLUMNS, and elsewhere a block for each route. In a file or pipe it is a table of any width, unless COLUMNS is set.

    Exit codes: as of `run`, and 4 if --max-series is exceeded.
    """
    output_format, max_series, start = (values.pop(name) for name in ("output_format", "max_series", "start"))
    with reported():
        from hr_prometheus.observability import route_table as module

        table, _ = route_table(options.settings_of(values), start=start)
    series, size = module.totals(table)
    if output_format == "json":
        document = {"routes": [dataclasses.asdict(row) for row in table], "series": series, "bytes": size}
        document["all_methods"] = module.USUAL_METHODS  # as which "*" is reckoned
        show(json.dumps(document, indent=2))
    else:
        # A file, or a program that reads, gets one line a route; a terminal of unknown width is taken for a usual one.
        unknown = 80 if sys.stdout.isatty() else 0
        width = shutil.get_terminal_size((unknown, 24)).columns
        show("\n".join(module.text_table(table, width or None)))
    if max_series is not None and series > max_series:
        typed = said("max_series", click.get_current_context(), own="--max-series")
        say(
            "Error",
            f"there can be {series:,} series, and {typed} is {max_series:,}. Fix parameters with --fixed-route, list "
            "their values with --allow-values, or lower --path-budget.",
        )
        sys.exit(_TOO_MANY_SERIES)
