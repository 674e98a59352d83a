"""The settings of ``hr-prometheus run``, the parsers of their written forms, and where each was typed."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hr_prometheus.errors import SettingError
from hr_prometheus.labels.policies import ALL, DEFAULT_PATH_BUDGET, SAFE
from hr_prometheus.metrics import DEFAULT_SLOW, LATENCY_BUCKETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080
DEFAULT_BACKLOG = 128
DEFAULT_LOG_LEVEL = "info"
#: Seconds. aiohttp's default of 60 outlives the 30 seconds that Kubernetes and most service managers give a process to stop.
DEFAULT_SHUTDOWN_TIMEOUT = 10.0
#: Seconds, as in ``aiohttp.web.run_app``.
DEFAULT_KEEPALIVE_TIMEOUT = 75.0
#: Seconds.
DEFAULT_WORKER_TIMEOUT = 30.0
#: Seconds for which one thing may hold the event loop.
DEFAULT_BLOCKED_AFTER = 0.1
MOST_WORKERS = 256
#: In a list of values, the beginning of another setting: NAME.PARAM=
_SETTING = re.compile(r"[^=]+\.\w+=")
#: Requests in its long window from which on an alert of an objective may fire. With fewer, a handful of errors is a large
#: share.
DEFAULT_LEAST_REQUESTS = 100


@dataclass(frozen=True)
class Origin:
    """Where a setting was typed: after an *option*, or as the *text* of an environment *variable*.

    *values* are as they were typed; a flag has none. The text of a variable that *is_list* has them separated by spaces.
    """

    option: str
    values: tuple[str, ...] = ()
    variable: str = ""
    text: str = ""
    is_list: bool = False

    @property
    def name(self) -> str:
        """The option alone, or the variable with its whole value."""
        if not self.variable:
            return self.option
        return f'{self.variable}="{self.text}"{" (values are separated by spaces)" * self.is_list}'

    def quote(self, value: str | None = None) -> str:
        """Return the option with this one of its values, by default the first, or the variable with all of them."""
        if self.variable or not self.values:
            return self.name
        return f'{self.option} "{self.values[0] if value is None else value}"'


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of ``hr-prometheus run``. ``None`` leaves a value to a script, and else to our default."""

    target: str
    arguments: tuple[str, ...] = ()
    app_dir: str = "."
    # the application's server
    host: str | None = None
    port: int | None = None
    unix_path: str | None = None
    unix_mode: int | None = None
    backlog: int | None = None
    reuse_port: bool | None = None
    shutdown_timeout: float | None = None
    keepalive_timeout: float | None = None
    access_log: bool | None = None
    log_level: str | None = None
    loop: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    # the workers; None: one process, without a supervisor
    workers: int | None = None
    worker_timeout: float | None = None
    max_requests: int | None = None
    # the metrics
    metrics_path: str = "/metrics"
    metrics_port: int | None = None
    metrics_host: str | None = None
    #: Whether the metrics port serves the status page; ``None``: if only this machine can reach it.
    status: bool | None = None
    #: The page's path on the application's own addresses.
    status_path: str | None = None
    fixed_routes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    monitor: str | None = None
    allow_values: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)
    keep_values: str = SAFE
    path_budget: int = DEFAULT_PATH_BUDGET
    buckets: tuple[float, ...] = LATENCY_BUCKETS
    metric_prefix: str = ""
    detail: str | None = None
    exclude: tuple[str, ...] = ()
    exclude_methods: tuple[str, ...] = ()
    #: The sources of extra labels, by their names.
    extra_labels: Mapping[str, str] = field(default_factory=dict)
    loop_metrics: bool = True
    blocked_after: float | None = None
    slow: float = DEFAULT_SLOW
    #: Where the settings were typed, by the names of their options; a default has none.
    origins: Mapping[str, Origin] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not os.path.isdir(self.app_dir):
            problem = " is not a directory. Expected one to import from."
            raise SettingError("app_dir", f'--app-dir "{self.app_dir}"', problem)
        for setting, host in (("host", self.host), ("metrics_host", self.metrics_host)):
            if host is not None and (set(host) & set("/[]") or host.count(":") == 1):
                port = f"--{setting.removesuffix('host')}port".replace("_", "-")
                problem = f" is not an address or a name alone. Expected, for example, 127.0.0.1 or ::1; the port has an option of its own, {port}."
                raise SettingError(setting, f'--{setting.replace("_", "-")} "{host}"', problem)
        if self.keyfile is not None and self.certfile is None:
            problem = " was given without --certfile. TLS needs the certificate as well."
            raise SettingError("keyfile", "--keyfile", problem)
        if self.metrics_host is not None and self.metrics_port is None:
            problem = " was given without --metrics-port. Metrics have a host only with a port of their own."
            raise SettingError("metrics_host", "--metrics-host", problem)
        self._check_page()
        for name, value in (("worker_timeout", self.worker_timeout), ("max_requests", self.max_requests)):
            if self.workers is None and value is not None:
                problem = " was given without --workers. Only --workers starts the supervisor that it is for."
                raise SettingError(name, f"--{name.replace('_', '-')}", problem)
        if self.blocked_after is not None and not self.loop_metrics:
            problem = (
                " was given with --no-loop-metrics. Only where the event loop is measured it is known to be blocked."
            )
            raise SettingError("blocked_after", "--blocked-after", problem)
        is_default = self.buckets == LATENCY_BUCKETS and not (self.metric_prefix or self.detail or self.extra_labels)
        if self.monitor is not None and not is_default:
            raise SettingError(
                "monitor",
                "--monitor",
                " was given with --buckets, --metric-prefix, --detail or --label, which belong to the default monitor. "
                "A monitor of your own names, labels and buckets its metrics itself.",
            )

    def _check_page(self) -> None:
        if self.status and self.metrics_port is None:
            problem = " was given without --metrics-port. On the application's own port the page needs a path: --status-path /-/status."
            raise SettingError("status", "--status", problem)
        if self.status_path == self.metrics_path and self.metrics_port is None:
            problem = " is the path of the metrics. Choose another one, for example /-/status."
            raise SettingError("status_path", f'--status-path "{self.status_path}"', problem)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as values that JSON can carry."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), default=sorted))
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Settings:
        """Inverse of :meth:`to_json`."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
        }
        values["fixed_routes"] = {name: frozenset(fixed) for name, fixed in plain["fixed_routes"].items()}
        values["allow_values"] = {
            name: {parameter: frozenset(allowed) for parameter, allowed in of_route.items()}
            for name, of_route in plain["allow_values"].items()
        }
        values["origins"] = {
            name: Origin(**{**origin, "values": tuple(origin["values"])}) for name, origin in plain["origins"].items()
        }
        return cls(**values)


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


#: Read values of repeatable options, to find out which of them an error is about.
_PARSERS: dict[str, Callable[[list[str]], Any]] = {
    "fixed_routes_parameters": parse_fixed_routes,
    "allow_values": parse_allowed_values,
    "extra_labels": parse_labels,
    "objective": lambda texts: [text.rpartition("=")[0] for text in texts],
}


def sentence_of(error: BaseException, origins: Mapping[str, Origin]) -> str:
    """Return an error's sentence for the person who typed the settings: it quotes the option or the variable.

    A policy that was not typed is the application's own, and keeps the words of the library.
    """
    if not isinstance(error, SettingError):
        return str(error)
    option = error.subject if error.subject.startswith("--") else ""
    origin, other = (origins.get(_OPTION_NAMES.get(name, name)) for name in (error.setting, error.contradicts))
    contradicts = "" if other is None else other.variable or other.option
    values = [value for value in origin.values if _is_about(error, value)] if origin else []
    if error.parts and not values:
        return str(error)
    if origin is None or (option and '"' not in option and not origin.variable):
        return error.command_sentence(option, contradicts)
    return error.command_sentence(origin.quote(next(iter(values), None)), contradicts)


#: The options of those settings that the library names otherwise.
_OPTION_NAMES = {"fixed_routes_parameters": "fixed_route", "extra_labels": "label", "exclude_methods": "exclude_method"}


def _is_about(error: SettingError, value: str) -> bool:
    """Whether an error is about this *value* of a repeatable option, so that it has the error's parts."""
    if value in error.parts:
        return True
    parse = _PARSERS.get(error.setting)
    parsed = () if parse is None else parse([value])
    for part in error.parts:
        if part not in parsed:
            return False
        parsed = parsed[part] if isinstance(parsed, dict) else ()
    return bool(error.parts)


def parse_buckets(text: str) -> tuple[float, ...]:
    """Read upper bounds in seconds, separated by commas."""
    try:
        return tuple(float(bound) for bound in text.split(","))
    except ValueError:
        raise SettingError(
            "buckets",
            f'--buckets "{text}"',
            " is not understood. Expected upper bounds in seconds separated by commas, for example 0.05,0.1,0.5,1,5.",
        ) from None


def parse_mode(text: str) -> int:
    """Read the permissions of a file: three octal digits."""
    if not re.fullmatch("(0o|0)?[0-7]{3}", text):
        problem = " is not understood. Expected the permissions of a file as three octal digits, for example 660."
        raise SettingError("unix_mode", f'--unix-mode "{text}"', problem)
    return int(text.removeprefix("0o"), 8)


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
