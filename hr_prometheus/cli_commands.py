"""The whole command line: the group with all of its commands."""

from hr_prometheus import cli_observability, cli_routes  # noqa: F401  # they give it their commands
from hr_prometheus.cli import main

__all__ = ["main"]
