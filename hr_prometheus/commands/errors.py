"""Errors: their sentences, which quote the option or variable as it was typed, and their exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from hr_prometheus.commands.parameters import quote_option, quote_variable, quote_variables_in
from hr_prometheus.commands.streams import print_error
from hr_prometheus.errors import ApplicationError, ConfigurationError, HrPrometheusError, ServingError, SettingError
from hr_prometheus.settings import parse_allowed_values, parse_fixed_routes

if TYPE_CHECKING:
    from collections.abc import Callable

    import click

    from hr_prometheus.commands.streams import StandardOutput

#: 0 is a stop, and 130 an interruption before the application served.
EXIT_CODES: dict[type[HrPrometheusError], int] = {ServingError: 1, ConfigurationError: 2, ApplicationError: 3}


def exit_with(error: HrPrometheusError, ctx: click.Context) -> NoReturn:
    """Print the sentence of *error*, below the traceback if the application has failed, and exit."""
    if isinstance(error, ApplicationError) and error.__cause__ is not None:
        traceback.print_exception(error.__cause__)
    print_error(_sentence(error, ctx))
    sys.exit(next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind)))


def report_refusal(error: OSError, output: StandardOutput) -> None:
    """Print the sentence of an error of the operating system that no command expects."""
    try:
        os.getcwd()
    except OSError:
        print_error("the current directory does not exist any more. Change to one that does.")
    else:
        if error.filename is None:  # only a standard stream has no name
            output.refuse(error)
        else:
            print_error(f'the operating system has refused "{error.filename}": {error.strerror}.')


def _sentence(error: HrPrometheusError, ctx: click.Context) -> str:
    if isinstance(error, SettingError):
        own = error.said if error.said.startswith("--") else ""
        if own and '"' not in own:  # an option without its value
            return error.of_command(quote_variable(error.setting, ctx) or own)
        typed = quote_option(error.setting, ctx, lambda value: _is_about(error, value))
        return error.of_command(own if typed is None else typed)
    sentence = str(error)
    variables = [] if isinstance(error, ApplicationError) else list(quote_variables_in(sentence, ctx))
    return f"{sentence} ({', '.join(variables)})" if variables else sentence


def _is_about(error: SettingError, value: str) -> bool:
    """Whether an error is about this one of the values of a repeatable option."""
    if value in error.words:
        return True
    parse: dict[str, Callable[[list[str]], Any]] = {
        "fixed_routes_parameters": parse_fixed_routes,
        "allow_values": parse_allowed_values,
        "objective": lambda values: [each.rpartition("=")[0] for each in values],
    }
    below = parse[error.setting]([value]) if error.setting in parse else ()
    for word in error.words:
        if word not in below:
            return False
        below = below[word] if isinstance(below, dict) else ()
    return bool(error.words)
