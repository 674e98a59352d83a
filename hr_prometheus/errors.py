"""The exceptions of hr-prometheus.

::

    HrPrometheusError
    ├── ConfigurationError   a setting is wrong, or does not fit the application (also a ValueError)
    │   ├── SettingError     it is the value of one setting that is wrong
    │   └── TargetError      the target names nothing that can be served
    ├── ApplicationError     the application's own code failed; the reason is ``__cause__``
    └── ServingError         the operating system refused an address or a file (also an OSError)

The message of each is one sentence for a person: what failed, the value in quotes, what was expected,
how to repair it. Only the command line turns them into printed words and exit codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class HrPrometheusError(Exception):
    """The base of every exception that hr-prometheus raises on purpose."""


class ConfigurationError(HrPrometheusError, ValueError):
    """A setting is wrong in itself, contradicts another, or does not fit the application."""


class SettingError(ConfigurationError):
    """The value of one setting is wrong in itself, contradicts another, or does not fit the application.

    *setting* is its name, *said* how a program says it, and *problem* the rest of the sentence. The command says instead
    what was typed, and where: of several values the one that has the *words*. *advice* comes last; the command has its own.
    """

    def __init__(  # noqa: PLR0917  # an exception that has come from a worker is made of positional arguments
        self,
        setting: str,
        said: str,
        problem: str,
        words: Sequence[str] = (),
        advice: str = "",
        command_advice: str = "",
    ) -> None:
        super().__init__(setting, said, problem, words, advice, command_advice)  # with which it can be made again
        self.setting, self.said, self.words = setting, said, words
        self._problem, self._advice, self._command_advice = problem, advice, command_advice

    def __str__(self) -> str:
        return _sentence(self.said, self._problem, self._advice)

    def of_command(self, typed: str) -> str:
        """Return the sentence for those who typed the setting's value as *typed*."""
        return _sentence(typed, self._problem, self._command_advice or self._advice)


class TargetError(ConfigurationError):
    """The target is badly written, or there is no such module, attribute or application."""


class ApplicationError(HrPrometheusError):
    """The application's own code failed while it was imported, made or started.

    ``__cause__`` is the application's exception; its traceback begins in the application's code.
    """


class ServingError(HrPrometheusError, OSError):
    """The operating system refused what serving needs: an address, a socket file, a certificate."""


def _sentence(said: str, problem: str, advice: str) -> str:
    return f"{said}{problem if said else problem.removeprefix(': ')}{advice}"


def did_you_mean(wrong: str, existing: Iterable[str], *, prefix: str = "") -> str:
    """Return ``' Did you mean "…"?'`` with the nearest existing name, behind its *prefix*, or an empty string."""
    from difflib import get_close_matches  # noqa: PLC0415  # only ever needed on the way to an error

    close = get_close_matches(wrong, list(existing), n=1)
    return f' Did you mean "{prefix}{close[0]}"?' if close else ""
