"""True, bounded and almost free Prometheus metrics for any aiohttp server."""

from hr_prometheus.access_log import access_log_class
from hr_prometheus.errors import ApplicationError, ConfigurationError, HrPrometheusError, ServingError, TargetError
from hr_prometheus.instrument import instrument
from hr_prometheus.middleware import hrprometheus_middleware
from hr_prometheus.view import hrprometheus_view

__version__ = "1.0.0"

__all__ = [
    "ApplicationError",
    "ConfigurationError",
    "HrPrometheusError",
    "ServingError",
    "TargetError",
    "access_log_class",
    "hrprometheus_middleware",
    "hrprometheus_view",
    "instrument",
]
