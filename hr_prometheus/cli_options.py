"""What the options of the commands have in common: an environment variable each, and the sections of the help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import click

_SERVER = "Where and how the application is served"
_WORKERS = "More than one process"
_METRICS = "Metrics"


class Option(click.Option):
    """An option with its environment variable, in one of the sections of ``--help``."""

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section
        self.envvar = "HR_PROMETHEUS_" + self.opts[-1].removeprefix("--").replace("-", "_").upper()
        self.show_envvar = True


class Command(click.Command):
    """A command whose help lists its options by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        sections: dict[str, list[tuple[str, str]]] = {_SERVER: [], _WORKERS: [], _METRICS: [], "Other": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections[getattr(parameter, "section", "Other")].append(record)
        for section, records in sections.items():
            if records:  # click can write no empty list
                with formatter.section(section):
                    formatter.write_dl(records)


Decorator: TypeAlias = Callable[[Callable[..., None]], Callable[..., None]]


def server_option(*names: str, **attributes: Any) -> Decorator:
    """Give a command an option of where and how the application is served."""
    return click.option(*names, cls=Option, section=_SERVER, **attributes)


def workers_option(*names: str, **attributes: Any) -> Decorator:
    """Give a command an option of the workers."""
    return click.option(*names, cls=Option, section=_WORKERS, **attributes)


def metrics_option(*names: str, **attributes: Any) -> Decorator:
    """Give a command an option of the metrics."""
    return click.option(*names, cls=Option, section=_METRICS, **attributes)
