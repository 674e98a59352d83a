"""The command that checks a web configuration."""

from __future__ import annotations

from typing import Any

import click

from hr_prometheus.commands.command import Command
from hr_prometheus.commands.parameters import Argument
from hr_prometheus.commands.streams import print_result, print_warning
from hr_prometheus.commands.types import FilePath
from hr_prometheus.settings import Settings


@click.command("check-web-config", cls=Command, reads_files=False, short_help="Check a file for --metrics-web-config.")
@click.argument("file", cls=Argument, type=FilePath())
def check_web_config(*, file: str, **_origins: Any) -> None:
    """Check FILE, a web configuration for --metrics-web-config, with the certificates and keys that it names.

    Exit codes: 0 no errors, 1 a file cannot be read, 2 something in it is wrong.
    """
    from hr_prometheus.access.access import NO_BURST
    from hr_prometheus.access.guard import check_access

    access = check_access(Settings(target="", metrics_port=0, metrics_web_config=file))
    if access.refuses_all:
        print_warning(NO_BURST)
    print_result("No errors.")
