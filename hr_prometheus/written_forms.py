"""The written forms of settings: the texts of options, read into values.

Each parser raises :exc:`~hr_prometheus.errors.SettingError` for a text that it does not understand, with what was expected.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from hr_prometheus.errors import SettingError
from hr_prometheus.labels.policies import ALL

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_WORKERS = 256
#: Among trusted peers, those of Unix sockets, which have no address, and all.
UNIX_PEERS, ALL_PEERS = "unix", "*"
#: In a list of values, the beginning of another setting: NAME.PARAM=
_SETTING = re.compile(r"[^=]+\.\w+=")
#: A field of an access log's line, and what looks like one. ``aiohttp.web_log`` documents ``%%`` and ``%{NAME}e`` as well, but
#: fails at them, and writes what it does not know as it is.
_FIELD = re.compile(r"%(?:Tf|[atPrsbTD]|\{[\w-]+\}[io])", re.ASCII)
_ANY_FIELD = re.compile(r"%(?:[({][^)}]*[)}]?)?\S?")


def parse_fixed_routes(texts: Iterable[str]) -> dict[str, frozenset[str]]:
    """Read ``NAME=PARAM[,PARAM…]``, ``NAME=*`` and ``*``; the parameters of a repeated name add up."""
    fixed: dict[str, frozenset[str]] = {}
    for text in texts:
        name, equals, listed = text.partition("=")
        if text == ALL:
            equals, listed = "=", ALL
        parameters = [parameter.strip() for parameter in listed.split(",")]
        if not name or not equals or not all(parameters):
            raise SettingError(
                "fixed_route",
                f'--fixed-route "{text}"',
                " is not understood. Expected NAME=PARAM[,PARAM…], for example "
                "get_cell=cell_id; NAME=* for all parameters of a route; * for all of every route.",
                (text,),
            )
        fixed[name] = fixed.get(name, frozenset()) | frozenset(parameters)
    return fixed


def parse_allowed_values(texts: Iterable[str]) -> dict[str, dict[str, frozenset[str]]]:
    """Read ``NAME.PARAM=VALUE[,VALUE…]``; the values of a repeated parameter add up."""
    allowed: dict[str, dict[str, frozenset[str]]] = {}
    for text in texts:
        key, equals, listed = text.partition("=")
        name, dot, parameter = key.rpartition(".")
        values = [value.strip() for value in listed.split(",")]
        has_another = any(_SETTING.match(value) for value in values)
        if has_another or not (name and dot and parameter and equals and all(values)):
            raise SettingError(
                "allow_values",
                f'--allow-values "{text}"',
                " is not understood. Expected NAME.PARAM=VALUE[,VALUE…], for example "
                "get_cell_neighbour.direction=north,south."
                + " Commas only separate the values of one parameter."
                * has_another,
                (text,),
            )
        of_route = allowed.setdefault(name, {})
        of_route[parameter] = of_route.get(parameter, frozenset()) | frozenset(values)
    return allowed


def parse_latencies(texts: Iterable[str]) -> dict[str, float]:
    """Read ``SECONDS`` and ``NAME=SECONDS``; return the seconds by name, with ``*`` for all other routes."""
    latencies: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            seconds = float(number)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf") or (equals and not name):
            problem = (
                " is not understood. Expected seconds, greater than 0 and without a unit, such as 0.5 for the application or "
                "report=30 for the route of that name."
            )
            raise SettingError("latency", f'--latency "{text}"', problem, (text,))
        if (name or ALL) in latencies:
            problem = ": there is another one for the same requests. Remove one."
            raise SettingError("latency", f'--latency "{text}"', problem, (text,))
        latencies[name or ALL] = seconds
    return latencies


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Read ``NAME=SOURCE``."""
    labels: dict[str, str] = {}
    for text in texts:
        name, _, source = text.partition("=")
        problem = ""
        if not name or not source:
            problem = " is not understood. Expected NAME=SOURCE, for example team=const:shop or client=header:X-Client=web,ios."
        elif name in labels:
            problem = f": the label {name} was given already. Give each label once."
        if problem:
            raise SettingError("label", f'--label "{text}"', problem, (text,))
        labels[name] = source
    return labels


def parse_buckets(texts: Iterable[str]) -> dict[str, tuple[float, ...]]:
    """Read ``BOUND,BOUND…`` for all routes, and ``NAME=BOUND,BOUND…`` for the route of a name."""
    buckets: dict[str, tuple[float, ...]] = {}
    for text in texts:
        name, equals, listed = text.rpartition("=")
        name = name if equals else ALL
        try:
            bounds = tuple(float(bound) for bound in listed.split(","))
        except ValueError:
            bounds = ()
        problem = ""
        if not bounds or not name:
            problem = (
                " is not understood. Expected upper bounds in seconds separated by commas, for example 0.05,0.1,0.5,1,5 for all "
                "routes or get_cell=0.5,1,5 for the route of that name."
            )
        elif name in buckets:
            problem = ": there are others for the same routes. Give them once."
        if problem:
            raise SettingError("buckets", f'--buckets "{text}"', problem, (text,))
        buckets[name] = bounds
    return buckets


def parse_access_log_format(text: str) -> str:
    """Check a format of aiohttp's access log, and return it."""
    fields = "%a %t %r %s %b %T %Tf %D %P %{NAME}i %{NAME}o"
    wrong = _ANY_FIELD.search(_FIELD.sub(" ", text))
    if wrong is None and _FIELD.search(text):
        return text
    problem = ": each line would be the same" if wrong is None else f': "{wrong[0]}" is not a field'
    problem += f". Expected aiohttp's fields, {fields}, for example '%a \"%r\" %s %Tf'."
    raise SettingError("access_log_format", f'--access-log-format "{text}"', problem)


def parse_trusted_peers(texts: Iterable[str]) -> tuple[str, ...]:
    """Read addresses, networks, ``unix`` and ``*``, separated by commas."""
    from ipaddress import ip_network  # noqa: PLC0415  # slow to import, and seldom needed

    peers: list[str] = []
    for text in texts:
        for peer in map(str.strip, text.split(",")):
            try:
                name = peer if peer in {UNIX_PEERS, ALL_PEERS} else str(ip_network(peer))
            except ValueError as error:
                problem = (
                    f': "{peer}" is not understood. Expected addresses, networks such as 10.0.0.0/8, {UNIX_PEERS} for the peers of Unix '
                    f"sockets, or {ALL_PEERS} for all, separated by commas."
                )
                if "host bits" in str(error):
                    problem = (
                        f': "{peer}" is one address of a network. Did you mean "{ip_network(peer, strict=False)}"?'
                    )
                raise SettingError("forwarded_allow_ips", f'--forwarded-allow-ips "{text}"', problem, (text,)) from None
            peers.append(name)
    return tuple(peers)


def parse_mode(text: str) -> int:
    """Read the permissions of a file: three octal digits."""
    if not re.fullmatch("(0o|0)?[0-7]{3}", text):
        problem = " is not understood. Expected the permissions of a file as three octal digits, for example 660."
        raise SettingError("unix_mode", f'--unix-mode "{text}"', problem)
    return int(text.removeprefix("0o"), 8)


def parse_trace_url(text: str) -> str:
    """Check the address of a trace, which has a place for its id, and return it."""
    if not re.match("https?://|/", text) or "{trace_id}" not in text:
        problem = (
            " is not understood. Expected an address with {trace_id} in the place of a trace's id, for example "
            "https://traces.example/trace/{trace_id}."
        )
        raise SettingError("trace_url", f'--trace-url "{text}"', problem)
    return text


def parse_workers(text: str) -> int:
    """Read a number of workers, or ``auto`` for one for each processor."""
    if text == "auto":
        return min(available_processors(), MOST_WORKERS)
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= MOST_WORKERS:
        raise SettingError(
            "workers",
            f'--workers "{text}"',
            f" is not understood. Expected a number from 1 to {MOST_WORKERS}, or auto for as many as there are processors.",
        )
    return number


def available_processors(cpu_max: str = "/sys/fs/cgroup/cpu.max") -> int:
    """Return the number of processors that this process may use, by its affinity and its container's quota; at least 1."""
    number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open(cpu_max, encoding="ascii") as file:
            quota, period = file.read().split()
        return max(1, min(number, int(quota) // int(period)))
    except (OSError, ValueError):  # no control groups, or "max": no quota
        return number
