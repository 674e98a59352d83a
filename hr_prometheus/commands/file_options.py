"""The options for files with settings, which every command has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hr_prometheus.commands.parameters import file_option
from hr_prometheus.commands.types import FilePath

if TYPE_CHECKING:
    from collections.abc import Callable

config = file_option(
    "--config",
    is_settable=False,
    type=FilePath(),
    metavar="FILE",
    show_default="the nearest one",
    help="Read settings from this file: hr-prometheus.toml or pyproject.toml, which are looked for in the current directory "
    "and above it.",
)
no_config = file_option("--no-config", is_settable=False, is_flag=True, help="Read no configuration file.")
env_file = file_option(
    "--env-file",
    type=FilePath(),
    metavar="FILE",
    help="Set the environment variables in this file, lines of NAME=VALUE, that are not set yet.",
)


def files(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options for files with settings."""
    for decorator in (env_file, no_config, config):
        function = decorator(function)
    return function
