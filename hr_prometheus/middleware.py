"""The published import path of the middleware."""

from hr_prometheus.request.middleware import hrprometheus_middleware

__all__ = ["hrprometheus_middleware"]
