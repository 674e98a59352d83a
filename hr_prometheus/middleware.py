"""The published import path of the middleware."""

from hr_prometheus.request.factory import hrprometheus_middleware

__all__ = ["hrprometheus_middleware"]
