"""The words of an error for those who typed its cause: as an option, or in an environment variable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hr_prometheus.cli_options import said, variables
from hr_prometheus.config import parse_allowed_values, parse_fixed_routes
from hr_prometheus.errors import ApplicationError, HrPrometheusError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable


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
