"""The exceptions of hr-prometheus.

::

    HrPrometheusError
    ├── ConfigurationError   a setting is wrong, or does not fit the application (also a ValueError)
    │   ├── SettingError     the value of one setting is wrong
    │   └── TargetError      the target cannot be served
    ├── ApplicationError     the application's own code failed; the reason is ``__cause__``
    ├── ServingError         the operating system refused an address or a file (also an OSError)
    └── ScrapeError          a URL gives no metrics

The message of each is for a person: what failed, the value in quotes, what was expected, how to repair it. Only the command
line turns them into printed words and exit codes.
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

    *setting* is its name. The message is *subject* (the setting and its value, as a program writes them), *problem* and
    *advice*. On the command line the subject is what was typed: of several values the one with these *parts*, such as a
    route's name and its parameter. *command_advice* takes the place of *advice* there. In either, ``{}`` stands for the
    setting that this one *contradicts*.
    """

    def __init__(  # noqa: PLR0917  # an exception from a worker is rebuilt with its positional arguments
        self,
        setting: str,
        subject: str,
        problem: str,
        parts: Sequence[str] = (),
        advice: str = "",
        command_advice: str = "",
        contradicts: str = "",
    ) -> None:
        # pickle and workers rebuild it
        super().__init__(setting, subject, problem, parts, advice, command_advice, contradicts)
        self.setting, self.subject, self.parts, self.contradicts = setting, subject, parts, contradicts
        self._problem, self._advice, self._command_advice = problem, advice, command_advice

    def __str__(self) -> str:
        return _sentence(self.subject, self._problem, self._advice.replace("{}", self.contradicts))

    def command_sentence(self, subject: str, contradicts: str = "") -> str:
        """Return the message for the command line, about *subject*: what was typed, or empty for a default.

        *contradicts* is the option or variable of the other setting.
        """
        advice = self._command_advice or self._advice
        return _sentence(subject, self._problem, advice.replace("{}", contradicts))


class TargetError(ConfigurationError):
    """The target is badly written, or there is no such module, attribute or application."""


class ApplicationError(HrPrometheusError):
    """The application's own code failed while it was imported, made or started.

    ``__cause__`` is the application's exception; its traceback begins in the application's code.
    """


class ServingError(HrPrometheusError, OSError):
    """The operating system refused what serving needs: an address, a socket file, a certificate.

    *settings* are the names of the settings that it is about, if that is not clear from their values.
    """

    settings: tuple[str, ...] = ()


class ScrapeError(HrPrometheusError):
    """A URL cannot be scraped: nothing answers, or the answer is no metrics."""


def _sentence(subject: str, problem: str, advice: str) -> str:
    return f"{subject}{problem if subject else problem.removeprefix(': ')}{advice}"


def did_you_mean(wrong: object, existing: Iterable[str], *, prefix: str = "") -> str:
    """Return ``' Did you mean "…"?'`` with the nearest existing name after *prefix*, or an empty string.

    Of names that differ in more than their case, the case counts for nothing.
    """
    from difflib import get_close_matches  # noqa: PLC0415  # only ever needed on the way to an error

    names = list(existing)
    close = get_close_matches(str(wrong).lower(), {name.lower() for name in names}, n=1)
    nearest = get_close_matches(str(wrong), [name for name in names if name.lower() in close], n=1, cutoff=0)
    return f' Did you mean "{prefix}{nearest[0]}"?' if nearest else ""
