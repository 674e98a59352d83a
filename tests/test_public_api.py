from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest
from conftest import APPS, DEADLINE, clean_environment

import hr_prometheus
from hr_prometheus.commands.group import cli


def test_the_public_names():
    """What can be imported from the package is this, and no more by accident."""
    assert hr_prometheus.__all__ == sorted(hr_prometheus.__all__)
    assert set(hr_prometheus.__all__) == {
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
        "print([name for name in ('click', 'difflib', 'runpy', 'hr_prometheus.commands.run') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


#: Runs the first code, and then each of the others in a fork of its own.
FORK_EACH = """
import os, sys
first, *codes = sys.argv[1:]
exec(first)
for code in codes:
    if pid := os.fork():
        assert os.waitpid(pid, 0)[1] == 0, code
    else:
        exec(code)
        os._exit(0)
"""


def in_forks(first: str, *codes: str) -> subprocess.CompletedProcess[str]:
    """Run codes, each in a fork of a new process that has run the *first*."""
    command = [sys.executable, "-c", FORK_EACH, first, *codes]
    return subprocess.run(
        command, env=clean_environment(), capture_output=True, text=True, check=True, timeout=DEADLINE
    )


def test_help_and_version_wait_for_no_server():
    """They load neither aiohttp nor prometheus_client nor asyncio."""
    first = (
        "import atexit, sys\n"
        "heavy = ('aiohttp', 'asyncio', 'prometheus_client')\n"
        "atexit.register(lambda: print(len(arguments), [name for name in heavy if name in sys.modules], file=sys.stderr))\n"
        "from hr_prometheus.commands.group import cli\n"
        "arguments = []\n"
    )
    words = [["--version"], ["--help"], *([name, "--help"] for name in cli.commands)]
    done = in_forks(first, *(f"arguments = {arguments}\ncli(arguments)\n" for arguments in words))
    assert done.stderr.splitlines() == [f"{len(arguments)} []" for arguments in (*words, [])]
    assert done.stdout.count("Usage: ") == len(words) - 1


def test_a_supervisor_imports_only_what_it_needs():
    """What only its workers need would take memory in one more process."""
    code = (
        "import atexit, sys\n"
        "heavy = ('uvloop', 'sysconfig', 'logging.config', 'hr_prometheus.server.run', 'hr_prometheus.workers.worker')\n"
        "atexit.register(lambda: print([name for name in heavy if name in sys.modules], file=sys.stderr))\n"
        "from hr_prometheus.commands.group import cli\n"
        "cli()\n"
    )
    command = [sys.executable, "-c", code, "run", "factories:exits", "--workers", "1", "--port", "0"]
    done = subprocess.run(
        command, cwd=APPS, env=clean_environment(), capture_output=True, text=True, check=True, timeout=DEADLINE
    )
    assert done.stderr == "[]\n"


def test_a_name_can_be_imported_before_and_after_everything_else():
    """No module of the package takes the place of a public name."""
    codes = []
    for name in hr_prometheus.__all__:
        first = f"from hr_prometheus import {name} as it\n"
        everything = "import hr_prometheus.server.run, hr_prometheus.workers.run, hr_prometheus.commands.group\n"
        code = f"{everything if name == 'instrument' else ''}{first}{everything}import hr_prometheus\n"
        codes.append(f"{code}assert it is hr_prometheus.{name} and callable(it) and {name!r} in dir(hr_prometheus)\n")
    in_forks("import aiohttp.web, click, prometheus_client", *codes)


def test_a_name_that_does_not_exist():
    """The error is Python's own."""
    with pytest.raises(AttributeError, match="module 'hr_prometheus' has no attribute 'nothing'"):
        _ = hr_prometheus.nothing
