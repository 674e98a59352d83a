"""The class of the commands: their settings, from wherever they were typed, and their help by sections."""

from __future__ import annotations

from typing import Any

import click

from hr_prometheus.commands.parameters import (
    APPLICATION,
    DEVELOPMENT,
    FILES,
    METRICS,
    NOT_TYPED,
    OUTPUT,
    SERVER,
    WORKERS,
    complete_bare_options,
    origins_of,
)
from hr_prometheus.commands.sources import read_files

_OTHER = "Other"
#: In the order of the help.
_SECTIONS = (OUTPUT, APPLICATION, SERVER, WORKERS, DEVELOPMENT, METRICS, FILES, _OTHER)


class Command(click.Command):
    """A command whose help lists its options by section, and whose function gets the *origins* of its settings.

    It *reads_files* with settings first, unless it only hands their names on.
    """

    def __init__(self, *args: Any, reads_files: bool = True, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.reads_files = reads_files

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments, after the files with settings. Help needs no file, and is shown whatever is wrong with one.

        If a file has the target, all that is typed behind ``--`` are its arguments.
        """
        end = args.index("--") if "--" in args else len(args)
        args = [*complete_bare_options(self, args[:end]), *args[end:]]
        if self.reads_files and not ctx.resilient_parsing:
            opts = self.make_parser(ctx).parse_args(args[:end])[0]
            help_option = self.get_help_option(ctx)
            if not (help_option and opts.get(str(help_option.name))) and read_files(ctx, opts):
                args = [*args[:end], NOT_TYPED, *args[end:]]
        return super().parse_args(ctx, args)

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
