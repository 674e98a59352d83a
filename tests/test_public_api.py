from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import hr_prometheus


def test_the_public_names():
    """What can be imported from the package is this, and no more by accident."""
    assert hr_prometheus.__all__ == sorted(hr_prometheus.__all__)
    assert set(hr_prometheus.__all__) == {
        "ApplicationError",
        "ConfigurationError",
        "HrPrometheusError",
        "ServingError",
        "TargetError",
        "access_log_class",
        "hrprometheus_middleware",
        "hrprometheus_view",
        "instrument",
    }


def test_the_published_places():
    """The names of hr-prometheus 0.2.0 are where they were."""
    from hr_prometheus.middleware import hrprometheus_middleware
    from hr_prometheus.monitors import BaseRequestMonitor, RequestMonitor
    from hr_prometheus.view import hrprometheus_view

    assert hr_prometheus.hrprometheus_middleware is hrprometheus_middleware
    assert hr_prometheus.hrprometheus_view is hrprometheus_view
    assert issubclass(RequestMonitor, BaseRequestMonitor)


def test_the_version():
    """The package's version is the distribution's."""
    assert hr_prometheus.__version__ == version("hr-prometheus")


def test_importing_registers_nothing_and_loads_no_click():
    """An import has no effect on the global registry, and none of the command line's cost."""
    code = (
        "import sys, prometheus_client\n"
        "before = list(prometheus_client.REGISTRY.collect())\n"
        "import hr_prometheus, hr_prometheus.monitors\n"
        "assert len(list(prometheus_client.REGISTRY.collect())) == len(before)\n"
        "print([name for name in ('click', 'difflib', 'runpy', 'hr_prometheus.cli') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
