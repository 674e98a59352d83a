"""The published import path of the view."""

from hr_prometheus.exposition.view import hrprometheus_view

__all__ = ["hrprometheus_view"]
