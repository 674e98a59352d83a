"""The ways to measure an application that are compared, and the environment of each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_ENVIRONMENTS = os.path.join(ROOT, ".venv-bench")

#: What is installed into each environment.
_REQUIREMENTS = {
    "published": ["hr-prometheus==0.2.0"],
    "exporter": ["aiohttp-prometheus-exporter==0.2.4"],
    "opentelemetry": [
        "opentelemetry-instrumentation-aiohttp-server",
        "opentelemetry-instrumentation-aiohttp-client",
        "opentelemetry-exporter-prometheus",
    ],
}


@dataclass(frozen=True)
class Peer:
    """One way to measure an application: its label in the tables, and its environment ("" is this one)."""

    label: str
    environment: str = ""


PEERS = {
    "bare": Peer("no middleware"),
    "empty": Peer("empty middleware"),
    "basic": Peer("hr-prometheus, basic, middleware alone"),
    "run-basic": Peer("hr-prometheus run, basic"),
    "full": Peer("hr-prometheus, full, middleware alone"),
    "run-full": Peer("hr-prometheus run, full"),
    "custom": Peer("hr-prometheus, custom monitor"),
    "by-hand": Peer("prometheus_client by hand"),
    "published": Peer("hr-prometheus 0.2.0", "published"),
    "published-custom": Peer("hr-prometheus 0.2.0, custom monitor", "published"),
    "exporter": Peer("aiohttp-prometheus-exporter 0.2.4", "exporter"),
    "opentelemetry": Peer("OpenTelemetry", "opentelemetry"),
    "empty-client": Peer("an empty TraceConfig"),
    "client": Peer("hr-prometheus, client_trace_config"),
    "opentelemetry-client": Peer("OpenTelemetry, client", "opentelemetry"),
}
#: Those that measure outgoing calls.
CLIENTS = ("empty-client", "client", "opentelemetry-client")


def interpreter(environment: str) -> str:
    """Return the path of the interpreter of an environment."""
    return os.path.join(_ENVIRONMENTS, environment, "bin", "python") if environment else sys.executable


def install(environment: str) -> str:
    """Install what an environment needs, if it is not there yet; return pip's error, or nothing."""
    folder = os.path.join(_ENVIRONMENTS, environment)
    # All have the same aiohttp and prometheus_client, which are not compared.
    requirements = [
        *_REQUIREMENTS[environment],
        *(f"{name}=={version(name)}" for name in ("aiohttp", "prometheus-client")),
    ]
    mark = os.path.join(folder, "installed")
    if os.path.exists(mark):
        with open(mark, encoding="utf-8") as file:
            if file.read() == "\n".join(requirements):
                return ""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        subprocess.run(  # noqa: S603
            [sys.executable, "-m", "venv", "--without-pip", folder], check=True, capture_output=True, text=True
        )
        subprocess.run(  # noqa: S603
            [sys.executable, "-m", "pip", "--python", interpreter(environment), "install", "--quiet", *requirements],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        errors = [line for line in error.stderr.splitlines() if "ERROR" in line]
        return errors[-1] if errors else f"pip ended with {error.returncode}"
    with open(mark, "w", encoding="utf-8") as file:
        file.write("\n".join(requirements))
    return ""
