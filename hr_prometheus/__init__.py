"""True, bounded and almost free Prometheus metrics for any aiohttp server."""

TYPE_CHECKING = False  # nothing is imported here: until it is, Ctrl-C is Python's
if TYPE_CHECKING:
    from hr_prometheus.client.trace_config import client_trace_config
    from hr_prometheus.errors import ApplicationError, ConfigurationError, HrPrometheusError, ServingError, TargetError
    from hr_prometheus.instrumentation import instrument
    from hr_prometheus.labels.extra import Label
    from hr_prometheus.middleware import hrprometheus_middleware
    from hr_prometheus.server.access_log import access_log_class
    from hr_prometheus.status.view import hrprometheus_status_view
    from hr_prometheus.view import hrprometheus_view

__version__ = "1.0.0"

__all__ = [
    "ApplicationError",
    "ConfigurationError",
    "HrPrometheusError",
    "Label",
    "ServingError",
    "TargetError",
    "access_log_class",
    "client_trace_config",
    "hrprometheus_middleware",
    "hrprometheus_status_view",
    "hrprometheus_view",
    "instrument",
]

# Imported when they are first asked for, so that `hr-prometheus --help` need not wait for aiohttp. No module may have
# the name of what it is the home of: Python would put the module in its place.
_HOMES = {
    "ApplicationError": "errors",
    "ConfigurationError": "errors",
    "HrPrometheusError": "errors",
    "Label": "labels.extra",
    "ServingError": "errors",
    "TargetError": "errors",
    "access_log_class": "server.access_log",
    "client_trace_config": "client.trace_config",
    "hrprometheus_middleware": "middleware",
    "hrprometheus_status_view": "status.view",
    "hrprometheus_view": "view",
    "instrument": "instrumentation",
}


def __getattr__(name: str) -> object:
    from importlib import import_module  # noqa: PLC0415

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | set(__all__))
