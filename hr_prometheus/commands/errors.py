"""From an error to its words and exit code, for those who typed its cause: as an option, or in an environment variable."""

from __future__ import annotations

import contextlib
import sys
import traceback
from typing import TYPE_CHECKING, Any

import click

from hr_prometheus.commands.parameters import said, variables
from hr_prometheus.commands.streams import say
from hr_prometheus.errors import ApplicationError, ConfigurationError, HrPrometheusError, ServingError, SettingError
from hr_prometheus.server.interrupts import INTERRUPTED
from hr_prometheus.settings import parse_allowed_values, parse_fixed_routes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


#: What the exit code says of each error; 0 is a stop, and 130 an interruption before it served.
EXIT_CODES: dict[type[HrPrometheusError], int] = {ServingError: 1, ConfigurationError: 2, ApplicationError: 3}


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """End the process with an error's sentence and exit code, or with that of an interruption."""
    try:
        yield
    except HrPrometheusError as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def fail(error: HrPrometheusError) -> None:
    """Print *error*, behind the traceback of the application if it is that which failed, and exit."""
    if isinstance(error, ApplicationError) and error.__cause__ is not None:
        traceback.print_exception(error.__cause__)
    say("Error", sentence(error))
    sys.exit(next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind)))


def sentence(error: HrPrometheusError) -> str:
    """Return an error's words, with what was typed, and where."""
    context = click.get_current_context()
    if isinstance(error, SettingError):
        typed = said(error.setting, context, lambda text: _has(error, text), error.said)
        own = error.said if error.said.startswith("--") else ""
        return error.of_command(own if typed is None else typed)
    text = str(error)
    found = [] if isinstance(error, ApplicationError) else variables(text, context)
    return f"{text} ({', '.join(found)})" if found else text


def _has(error: SettingError, text: str) -> bool:
    """Whether *text* is the value of a repeatable option that the error is about."""
    if text in error.words:
        return True
    parse: dict[str, Callable[[list[str]], Any]] = {
        "fixed_routes_parameters": parse_fixed_routes,
        "allow_values": parse_allowed_values,
        "objective": lambda texts: [name for name, _, _ in (each.rpartition("=") for each in texts)],
    }
    value = parse[error.setting]([text]) if error.setting in parse else ()
    for word in error.words:
        if word not in value:
            return False
        value = value[word] if isinstance(value, dict) else ()
    return bool(error.words)
