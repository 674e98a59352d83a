"""The settings of ``hr-prometheus run``."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hr_prometheus.errors import SettingError
from hr_prometheus.labels.policies import DEFAULT_PATH_BUDGET, SAFE
from hr_prometheus.metrics import DEFAULT_SLOW, NO_EXEMPLARS
from hr_prometheus.names import DEFAULT_NAMES
from hr_prometheus.origins import TYPED, Origin

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080
#: What a Prometheus on the same machine scrapes, for each address that stands for all of the machine's.
LOCAL_ADDRESSES = {"0.0.0.0": DEFAULT_HOST, "::": "::1"}  # noqa: S104
DEFAULT_BACKLOG = 128
DEFAULT_LOG_LEVEL = "info"
DEFAULT_LOG_FORMAT = "text"
#: Seconds. aiohttp's default of 60 outlives the 30 seconds that Kubernetes and most service managers give a process to stop.
DEFAULT_SHUTDOWN_TIMEOUT = 10.0
#: Seconds, as in ``aiohttp.web.run_app``.
DEFAULT_KEEPALIVE_TIMEOUT = 75.0
#: Seconds.
DEFAULT_WORKER_TIMEOUT = 30.0
#: Seconds.
DEFAULT_BOOT_TIMEOUT = 60.0
#: Seconds for which one thing may hold the event loop.
DEFAULT_BLOCKED_AFTER = 0.1
#: Requests in its long window from which on an alert of an objective may fire. With fewer, a handful of errors is a large
#: share.
DEFAULT_LEAST_REQUESTS = 100


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
    #: Inherited descriptors, which are served on instead of an address.
    fds: tuple[int, ...] = ()
    backlog: int | None = None
    reuse_port: bool | None = None
    shutdown_timeout: float | None = None
    keepalive_timeout: float | None = None
    handler_cancellation: bool | None = None
    access_log: bool | None = None
    #: In the fields of ``aiohttp.web_log.AccessLogger``.
    access_log_format: str | None = None
    #: The peers whose X-Forwarded-For and -Proto the access log believes.
    forwarded_allow_ips: tuple[str, ...] = ()
    log_level: str | None = None
    log_format: str | None = None
    #: A file for ``logging.config.dictConfig``.
    log_config: str | None = None
    loop: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    pid_file: str | None = None
    # the workers; None: one process, without a supervisor
    workers: int | None = None
    worker_timeout: float | None = None
    boot_timeout: float | None = None
    max_requests: int | None = None
    # the restart of one worker when a file changes
    reload: bool = False
    reload_dirs: tuple[str, ...] = ()
    reload_include: tuple[str, ...] = ()
    reload_exclude: tuple[str, ...] = ()
    # the metrics
    metrics_path: str = "/metrics"
    metrics_port: int | None = None
    metrics_host: str | None = None
    metrics_certfile: str | None = None
    metrics_keyfile: str | None = None
    #: A file with the bearer token of the metrics port.
    metrics_token_file: str | None = None
    #: A web configuration, as Prometheus' exporters have it.
    metrics_web_config: str | None = None
    #: The directory of files by which Prometheus discovers processes.
    file_sd: str | None = None
    #: Whether the metrics port serves the status page; ``None``: if only this machine can reach it.
    status: bool | None = None
    #: The page's path on the application's own addresses.
    status_path: str | None = None
    fixed_routes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    monitor: str | None = None
    allow_values: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)
    keep_values: str = SAFE
    path_budget: int = DEFAULT_PATH_BUDGET
    #: The bounds of latencies by the names of routes; ``*``: of all others.
    buckets: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    metric_prefix: str = ""
    #: The name sets of the request metrics.
    names: tuple[str, ...] = DEFAULT_NAMES
    latency_by_status: bool = False
    #: ``only`` or ``both``, for protocol buffers without the classic histograms or with them.
    native_histograms: str | None = None
    #: Where the traces of requests are taken from.
    exemplars: str = NO_EXEMPLARS
    detail: str | None = None
    exclude: tuple[str, ...] = ()
    exclude_methods: tuple[str, ...] = ()
    #: The sources of extra labels, by their names.
    extra_labels: Mapping[str, str] = field(default_factory=dict)
    loop_metrics: bool = True
    blocked_after: float | None = None
    #: Which client sessions are measured: ``kept`` or ``all``.
    client_metrics: str | None = None
    client_by_route: bool = False
    slow: float = DEFAULT_SLOW
    #: Where the settings were typed, by the names of their options; a default has none.
    origins: Mapping[str, Origin] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_places()
        self._check_fds()
        if self.keyfile is not None and self.certfile is None:
            problem = " was given without --certfile. TLS needs the certificate as well."
            raise SettingError("keyfile", "--keyfile", problem)
        self._check_metrics_port()
        if self.log_config is not None and self.log_format is not None:
            problem = " was given with --log-config, which has formats of its own."
            raise SettingError("log_format", "--log-format", problem)
        ranks = self._rank("access_log"), self._rank("access_log_format")
        if self.access_log is False and ranks == (TYPED, TYPED):
            problem = " was given with --no-access-log. Leave one of them out."
            raise SettingError("access_log_format", "--access-log-format", problem)
        self._check_page()
        for name in ("worker_timeout", "boot_timeout", "max_requests"):
            if self.workers is None and not self.reload and getattr(self, name) is not None:
                problem = " was given without --workers. Only --workers starts the supervisor that it is for."
                raise SettingError(name, f"--{name.replace('_', '-')}", problem)
        self._check_reload()
        if self.blocked_after is not None and not self.loop_metrics:
            problem = " was given with --no-loop-metrics. Blocks are known only where the event loop is measured."
            raise SettingError("blocked_after", "--blocked-after", problem)
        if self.client_by_route and self.client_metrics is None:
            problem = " was given without --client-metrics, whose metrics it gives a label. Give both."
            raise SettingError("client_by_route", "--client-by-route", problem)
        self._check_monitor()

    @property
    def wants_access_log(self) -> bool | None:
        """Whether there is an access log; ``None`` leaves it to a script.

        A format asks for one, unless ``--no-access-log`` stands beside it, or where it wins over the format.
        """
        is_off = self.access_log is False and self._rank("access_log") >= self._rank("access_log_format")
        return self.access_log if self.access_log_format is None or is_off else True

    def _rank(self, setting: str) -> int:
        return self.origins[setting].rank if setting in self.origins else 0

    def _check_metrics_port(self) -> None:
        problem = " was given without --metrics-port. Metrics have a host only with a port of their own."
        if self.metrics_host is not None and self.metrics_port is None:
            raise SettingError("metrics_host", "--metrics-host", problem)
        problem = " was given without --metrics-port. It is for a port of the metrics' own."
        for name in ("metrics_certfile", "metrics_keyfile", "metrics_token_file", "metrics_web_config"):
            if getattr(self, name) is not None and self.metrics_port is None:
                raise SettingError(name, f"--{name.replace('_', '-')}", problem)
        if self.metrics_web_config is not None and self.metrics_certfile is not None:
            problem = " was given with --metrics-web-config, which names the certificate itself. Leave one of them out."
            raise SettingError("metrics_certfile", "--metrics-certfile", problem)
        if self.metrics_keyfile is not None and self.metrics_certfile is None:
            problem = " was given without --metrics-certfile. TLS needs the certificate as well."
            raise SettingError("metrics_keyfile", "--metrics-keyfile", problem)

    def _check_places(self) -> None:
        for setting, directory, purpose in (
            ("app_dir", self.app_dir, "to import from"),
            ("file_sd", self.file_sd, "from which Prometheus reads its targets"),
        ):
            if directory is not None and not os.path.isdir(directory):
                problem = f" is not a directory. Expected one {purpose}."
                raise SettingError(setting, f'--{setting.replace("_", "-")} "{directory}"', problem)
        for setting, host in (("host", self.host), ("metrics_host", self.metrics_host)):
            if host is not None and (set(host) & set("/[]") or host.count(":") == 1):
                port = f"--{setting.removesuffix('host')}port".replace("_", "-")
                problem = f" is not an address or a name alone. Expected, for example, 127.0.0.1 or ::1; the port has an option of its own, {port}."
                raise SettingError(setting, f'--{setting.replace("_", "-")} "{host}"', problem)

    def _check_fds(self) -> None:
        for name in ("host", "port", "unix_path", "unix_mode", "reuse_port"):
            if self.fds and getattr(self, name) is not None:
                advice = "{}, whose sockets are bound already. Leave it out."
                raise SettingError(name, f"--{name.replace('_', '-')}", " was given with ", (), advice, "", "fd")

    def _check_monitor(self) -> None:
        of_default = {
            "--buckets": self.buckets, "--names": self.names != DEFAULT_NAMES, "--metric-prefix": self.metric_prefix,
            "--detail": self.detail, "--label": self.extra_labels, "--latency-by-status": self.latency_by_status,
            "--native-histograms": self.native_histograms,
            "--exemplars": self.exemplars != NO_EXEMPLARS,
        }  # fmt: skip
        names = {origin.option: origin.name for origin in self.origins.values()}
        given = " and ".join(names.get(option, option) for option in of_default if of_default[option])
        if self.monitor is not None and given:
            problem = f" was given with {given}, which only the default monitor takes. Leave out one of the two."
            raise SettingError("monitor", "--monitor", problem)

    def _check_reload(self) -> None:
        if self.reload and self.workers is not None and self.workers > 1:
            advice = f"{{}} asks for {self.workers}. Leave one of them out, or give --workers 1."
            raise SettingError("reload", "--reload", " restarts one worker, but ", (), advice, "", "workers")
        for name in ("reload_dir", "reload_include", "reload_exclude"):
            if self._rank(name) == TYPED and not self.reload:  # elsewhere it may wait for --reload
                problem = " was given without --reload. Only --reload watches files."
                raise SettingError(name, f"--{name.replace('_', '-')}", problem)
        for directory in self.reload_dirs:
            if not os.path.isdir(directory):
                problem = " is not a directory. Expected a directory whose files are watched."
                raise SettingError("reload_dir", f'--reload-dir "{directory}"', problem, (directory,))

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
        values["buckets"] = {name: tuple(bounds) for name, bounds in plain["buckets"].items()}
        values["fixed_routes"] = {name: frozenset(fixed) for name, fixed in plain["fixed_routes"].items()}
        values["allow_values"] = {
            name: {parameter: frozenset(allowed) for parameter, allowed in of_route.items()}
            for name, of_route in plain["allow_values"].items()
        }
        values["origins"] = {
            name: Origin(**{**origin, "values": tuple(origin["values"]), "lines": tuple(origin["lines"])})
            for name, origin in plain["origins"].items()
        }
        return cls(**values)
