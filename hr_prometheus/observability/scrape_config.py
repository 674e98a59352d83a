"""The configuration with which Prometheus scrapes an application, on a machine or in Kubernetes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hr_prometheus.access.access import metrics_scheme
from hr_prometheus.errors import ConfigurationError
from hr_prometheus.exposition.view import check_metrics_path
from hr_prometheus.observability.credentials import credentials_of
from hr_prometheus.observability.yaml_text import render_yaml
from hr_prometheus.server.target_file import PATTERN
from hr_prometheus.settings import DEFAULT_HOST, DEFAULT_PORT, LOCAL_ADDRESSES
from hr_prometheus.store.bounds import BOTH

if TYPE_CHECKING:
    from hr_prometheus.settings import Settings


def render_scrape_config(settings: Settings, job: str, version: str | None = None, *, convert: bool = False) -> str:
    """Return the ``scrape_configs`` of a Prometheus on the machine of an application that is run with *settings*.

    With ``file_sd`` Prometheus reads the targets from the files that the processes write. Its major *version* decides how it
    gets native histograms. With *convert* it makes one series of each classic histogram.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` if the metrics have no TCP port, or another one each time, or if the
    version cannot convert.
    """
    config: dict[str, Any] = {"job_name": job}
    if settings.file_sd is None:
        host, port, scheme = _address(settings)
        config |= {"scheme": scheme, "metrics_path": settings.metrics_path}
    credentials, histograms = credentials_of(settings), _Histograms(settings.native_histograms, version, convert)
    config |= histograms.for_prometheus() | credentials.for_prometheus()
    if settings.file_sd is not None:
        files = os.path.join(os.path.abspath(settings.file_sd), PATTERN)
        config["file_sd_configs"] = [{"files": [files]}]
        comment = "Add this to prometheus.yml. The processes that are run with the same --file-sd write the files."
    else:
        host = LOCAL_ADDRESSES.get(host, host)
        config["static_configs"] = [{"targets": [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]}]
        comment = "Add this to prometheus.yml, with the name by which Prometheus reaches the machine."
    return render_yaml({"scrape_configs": [config]}, comment, *histograms.comments(), *credentials.comments())


@dataclass(frozen=True)
class _Histograms:
    """How a Prometheus of a *version* gets one series for each histogram of an application, which has them native in a *mode*."""

    mode: str | None
    version: str | None
    convert: bool

    def __post_init__(self) -> None:
        if self.convert and (self.version != "3" or self.mode is not None):
            raise ConfigurationError(
                "--convert-histograms is for classic histograms in Prometheus 3. Give it with --prometheus 3, and without "
                "--native-histograms."
            )

    def for_prometheus(self) -> dict[str, bool]:
        """Return the fields of a scrape configuration."""
        if self.version != "3":
            return {}
        if self.mode is None:
            return {"convert_classic_histograms_to_nhcb": True} if self.convert else {}
        names = ["scrape_native_histograms", *["always_scrape_classic_histograms"] * (self.mode == BOTH)]
        return dict.fromkeys(names, True)

    def for_operator(self) -> dict[str, bool]:
        """Return the fields of a PodMonitor or a ServiceMonitor."""
        names = {
            "convert_classic_histograms_to_nhcb": "convertClassicHistogramsToNHCB",
            "scrape_native_histograms": "scrapeNativeHistograms",
            "always_scrape_classic_histograms": "scrapeClassicHistograms",
        }
        return {names[name]: value for name, value in self.for_prometheus().items()}

    def comments(self) -> list[str]:
        """Return what the version must be, or be started with."""
        feature = "--enable-feature=native-histograms"
        if self.mode is None:
            nhcb = [
                f"Each classic histogram becomes one series, without le. Before Prometheus 3.8 start it with {feature}.",
                "Make the dashboard and rules with --native-histograms: there are no series with _bucket.",
            ]
            return nhcb if self.convert else []
        if self.version == "3":
            return [f"Before Prometheus 3.8 leave scrape_native_histograms out, and start it with {feature}."]
        if self.version is None:
            return ["For native histograms give --prometheus 2 or 3 as well."]
        both = "From 2.45 on scrape_classic_histograms: true keeps the classic histograms as well."
        return [
            f"Start Prometheus with {feature}, so that it asks for native histograms.",
            *[both] * (self.mode == BOTH),
        ]


def render_pod_monitor(settings: Settings, job: str, version: str | None = None, *, convert: bool = False) -> str:
    """Return a ``PodMonitor`` and a ``ServiceMonitor`` for the Prometheus operator, and annotations for a Prometheus without.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` as :func:`render_scrape_config` does, for a job that cannot be a
    name in Kubernetes, and for metrics that only their own machine can reach.
    """
    host, port, scheme = _address(settings)
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", job):
        raise ConfigurationError(
            f'--job "{job}" cannot be a name in Kubernetes. Expected at most 63 lower-case letters, digits and hyphens.'
        )
    if settings.file_sd is not None:
        raise ConfigurationError(
            "--file-sd was given with --kubernetes. In Kubernetes Prometheus asks its interface for the pods."
        )
    if host not in LOCAL_ADDRESSES:
        raise ConfigurationError(
            f'the metrics would listen on "{host}", and Prometheus scrapes a pod at its own address. Give --host 0.0.0.0, '
            "or --metrics-host 0.0.0.0 with --metrics-port, here and where the application is run."
        )
    credentials, secret = credentials_of(settings), f"{job}-metrics"
    histograms = _Histograms(settings.native_histograms, version, convert)
    endpoint = {"port": "metrics", "scheme": scheme, "path": settings.metrics_path}
    endpoint |= credentials.for_operator(secret)
    pods = render_yaml(
        _monitor("PodMonitor", job, "podMetricsEndpoints", endpoint, histograms.for_operator()),
        "For the Prometheus operator. The pods carry this label, and their container has a port with this name:",
        f"  ports: [{{name: metrics, containerPort: {port}}}]",
        *histograms.comments(),
        *credentials.comments(secret),
    )
    services = render_yaml(
        _monitor("ServiceMonitor", job, "endpoints", endpoint, histograms.for_operator()),
        "Or, where a Service with this label stands before the pods: its port has this name. With both all is scraped twice.",
        f"  ports: [{{name: metrics, port: {port}}}]",
    )
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/scheme": scheme,
        "prometheus.io/path": settings.metrics_path,
        "prometheus.io/port": str(port),
    }
    patch = render_yaml(
        {"spec": {"template": {"metadata": {"annotations": annotations}}}},
        "Or, for a Prometheus that looks for annotations: kubectl patch deployment NAME --patch-file FILE",
    )
    return f"{pods}---\n{services}---\n{patch}"


def _monitor(
    kind: str, job: str, endpoints: str, endpoint: dict[str, Any], histograms: dict[str, bool]
) -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": kind,
        "metadata": {"name": job, "labels": {"app.kubernetes.io/name": job}},
        "spec": {
            "jobLabel": "app.kubernetes.io/name",
            "selector": {"matchLabels": {"app.kubernetes.io/name": job}},
            **histograms,
            endpoints: [endpoint],
        },
    }


def _address(settings: Settings) -> tuple[str, int, str]:
    """Return host, port and scheme of the metrics."""
    check_metrics_path(settings.metrics_path)
    host, port, scheme = settings.host or DEFAULT_HOST, settings.port, "http"
    if settings.metrics_port is not None:
        host, port = settings.metrics_host or host, settings.metrics_port
        scheme = metrics_scheme(settings)
    elif settings.unix_path is not None and settings.host is None and port is None:
        raise ConfigurationError(
            f'the metrics are on the unix socket "{settings.unix_path}", and Prometheus scrapes TCP ports only. Serve '
            "them on a port of their own: --metrics-port 9100."
        )
    elif settings.certfile is not None:
        scheme = "https"
    if port == 0:
        raise ConfigurationError("port 0 is a different port at each start, so it cannot be configured. Choose a port.")
    return host, DEFAULT_PORT if port is None else port, scheme
