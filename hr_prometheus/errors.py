"""The exceptions of hr-prometheus.

::

    HrPrometheusError
    ├── ConfigurationError   a setting is wrong, or does not fit the application (also a ValueError)
    │   └── TargetError      the target names nothing that can be served
    ├── ApplicationError     the application's own code failed; the reason is ``__cause__``
    └── ServingError         the operating system refused an address or a file (also an OSError)

The message of each is one sentence for a person: what failed, the value in quotes, what was expected,
how to repair it. Only the command line turns them into printed words and exit codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class HrPrometheusError(Exception):
    """The base of every exception that hr-prometheus raises on purpose."""


class ConfigurationError(HrPrometheusError, ValueError):
    """A setting is wrong in itself, contradicts another, or does not fit the application."""


class TargetError(ConfigurationError):
    """The target is badly written, or there is no such module, attribute or application."""


class ApplicationError(HrPrometheusError):
    """The application's own code failed while it was imported, made or started.

    ``__cause__`` is the application's exception; its traceback begins in the application's code.
    """


class ServingError(HrPrometheusError, OSError):
    """The operating system refused what serving needs: an address, a socket file, a certificate."""


def did_you_mean(wrong: str, existing: Iterable[str], *, prefix: str = "") -> str:
    """Return ``' Did you mean "…"?'`` with the nearest existing name, behind its *prefix*, or an empty string."""
    from difflib import get_close_matches  # noqa: PLC0415  # only ever needed on the way to an error

    close = get_close_matches(wrong, list(existing), n=1)
    return f' Did you mean "{prefix}{close[0]}"?' if close else ""
