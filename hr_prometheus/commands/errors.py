"""Errors: their sentences, which quote the option or variable as it was typed, and their exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from hr_prometheus.commands.parameters import origins_of, quote_origins_in
from hr_prometheus.commands.streams import print_error
from hr_prometheus.errors import (
    ApplicationError,
    ConfigurationError,
    HrPrometheusError,
    ScrapeError,
    ServingError,
    SettingError,
    TargetError,
)
from hr_prometheus.origins import sentence_of
from hr_prometheus.quotes import quote, quote_path

if TYPE_CHECKING:
    import click

    from hr_prometheus.commands.streams import StandardOutput

#: 0 is a stop, and 130 an interruption before the application served.
EXIT_CODES: dict[type[HrPrometheusError], int] = {
    ServingError: 1,
    ScrapeError: 1,
    ConfigurationError: 2,
    ApplicationError: 3,
}


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
        print_error("the current directory does not exist any more. Change to an existing directory.")
    else:
        if error.filename is None:  # only a standard stream has no name
            output.refuse(error)
        else:
            print_error(f"the operating system has refused {quote_path(str(error.filename))}: {error.strerror}.")


def _sentence(error: HrPrometheusError, ctx: click.Context) -> str:
    origins = origins_of(ctx)
    sentence = sentence_of(error, origins)
    if isinstance(error, ApplicationError | SettingError):
        return sentence
    for origin in origins.values():
        for value in origin.values[:1]:
            quoted = quote(value, is_path=origin.is_path)
            sentence = sentence.replace(f"{origin.option} {quoted}", origin.quote())
    settings = error.settings if isinstance(error, ServingError) else ()
    places = list(quote_origins_in(sentence, ctx, settings))
    target = origins.get("target")
    if isinstance(error, TargetError) and target is not None and target.file:
        is_quoted = target.name in places or target.quote() in sentence
        places = [target.name] * (not is_quoted) + places  # the sentence may have a part of it
    return f"{sentence} ({', '.join(places)})" if places else sentence
