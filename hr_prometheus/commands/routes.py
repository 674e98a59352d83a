"""The command that shows the routes of an application."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

import click

from hr_prometheus.commands import file_options, options, output_options
from hr_prometheus.commands.application import load_routes
from hr_prometheus.commands.command import Command
from hr_prometheus.commands.parameters import origins_of
from hr_prometheus.commands.streams import output_width, print_error, print_result
from hr_prometheus.settings import Settings

_TOO_MANY_SERIES = 4


@click.command(cls=Command, short_help="Show the routes of an application as the metrics will see them.")
@options.target
@options.arguments
@output_options.output_format
@output_options.max_series
@options.app_dir
@options.start
@options.series
@file_options.files
def routes(*, output_format: str, max_series: int | None, start: bool, **values: Any) -> None:
    """Show the route table of TARGET as the metrics will see it; see `run` for TARGET and ARGS.

    The application is made but not started, unless --start is given. The table shows for each route its methods, its name
    and the label of its requests. <NAME> in a label is a parameter whose values are kept. Then come the policy of each
    parameter, and how many path labels and series there can be at worst. It is a table where that fits the terminal, or
    COLUMNS, and elsewhere a block for each route. In a file or pipe it is a table of any width, unless COLUMNS is set.

    Exit codes: as of `run`, and 4 if --max-series is exceeded.
    """
    rows, settings = load_routes(Settings(**values), start=start)
    from hr_prometheus.observability.route_table import render_table, totals, usual_methods

    series, size = totals(rows)
    if output_format == "json":
        document = {"routes": [dataclasses.asdict(row) for row in rows], "series": series, "bytes": size}
        document["all_methods"] = usual_methods(settings)  # of "*"
        print_result(json.dumps(document, indent=2))
    else:
        print_result("\n".join(render_table(rows, usual_methods(settings), output_width())))
    if max_series is not None and series > max_series:
        limit = origins_of(click.get_current_context())["max_series"].name
        print_error(
            f"there can be {series:,} series, and {limit} is {max_series:,}. Fix parameters with --fixed-route, list "
            "their values with --allow-values, or lower --path-budget."
        )
        sys.exit(_TOO_MANY_SERIES)
