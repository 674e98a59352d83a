"""The published import path of the monitors."""

from hr_prometheus.request.monitors import BaseRequestMonitor, RequestMonitor

__all__ = ["BaseRequestMonitor", "RequestMonitor"]
