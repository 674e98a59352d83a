"""The class of the commands, whose help has sections."""

from __future__ import annotations

from typing import Any

import click

from hr_prometheus.commands.parameters import APPLICATION, METRICS, OUTPUT, SERVER, WORKERS, origins_of

_OTHER = "Other"
#: In the order of the help.
_SECTIONS = (OUTPUT, APPLICATION, SERVER, WORKERS, METRICS, _OTHER)


class Command(click.Command):
    """A command whose help lists its options by section, and whose function gets the *origins* of its settings."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        ctx.params["origins"] = origins_of(ctx)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        sections: dict[str, list[tuple[str, str]]] = {section: [] for section in _SECTIONS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections[getattr(parameter, "section", _OTHER)].append(record)
        for section, records in sections.items():
            if records:  # click cannot write an empty list
                with formatter.section(section):
                    formatter.write_dl(records)
