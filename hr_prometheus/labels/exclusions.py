"""Patterns of path labels to leave out: which of them match no label of an application."""

from __future__ import annotations

from fnmatch import fnmatchcase
from itertools import chain
from typing import TYPE_CHECKING

from aiohttp.web import UrlDispatcher

from hr_prometheus.errors import did_you_mean
from hr_prometheus.labels.resources import MALFORMED, UNMATCHED, all_resources, may_overlap, path_format, template

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp.web import AbstractResource, Application

    from hr_prometheus.labels.policies import Policies

#: A value that only a pattern matches which matches every value.
_ANY_VALUE = "\N{REPLACEMENT CHARACTER}" * 100


def covers(patterns: Iterable[str], resource: AbstractResource, policies: Policies) -> bool:
    """Whether one of the patterns leaves out all path labels of a resource; in doubt it does not."""
    form, names = path_format(resource, policies.of(resource)[0])
    labels = [template(resource), form % ((_ANY_VALUE,) * len(names))]
    return any(all(fnmatchcase(label, pattern) for label in filter(None, labels)) for pattern in patterns)


def idle_patterns(
    patterns: Iterable[str], apps: Iterable[Application], policies: Policies, *more: str
) -> dict[str, str]:
    """Return the *patterns* that no path label of the applications can match, each with the rest of a sentence about it.

    *more* are labels beside those of their routes. It is empty if each has a router of its own.
    """
    patterns, apps = tuple(patterns), [app for app in apps if isinstance(app.router, UrlDispatcher)]
    if not (patterns and apps):
        return {}
    labels = [label.replace("%", "%%") for label in (UNMATCHED, MALFORMED, *more)]
    for resource in chain.from_iterable(map(all_resources, apps)):
        form = path_format(resource, policies.of(resource)[0])[0]
        labels.append(form or template(resource).replace("%", "%%"))
    constants = [label for label in labels if "%" not in label]
    return {
        pattern: f"matches no path label, so it leaves nothing out.{_hint(pattern, constants)}"
        for pattern in patterns
        if not any(may_overlap(pattern, label) for label in labels)
    }


def _hint(pattern: str, labels: list[str]) -> str:
    if "," in pattern:  # more likely several patterns than a misspelt one
        return " Commas do not separate patterns."
    return did_you_mean(pattern, labels)
