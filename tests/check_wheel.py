"""Check an installed wheel, with nothing but its own dependencies: run by ``make wheel``, outside pytest."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.request
from importlib.metadata import requires, version

import hr_prometheus

APP = "from aiohttp import web\napp = web.Application()\n"


def check_page() -> None:
    """The files of the status page are in the wheel."""
    static = pathlib.Path(hr_prometheus.__file__).parent / "status" / "static"
    names = "index.html status.js status.css vendor/uPlot.iife.min.js vendor/uPlot.min.css vendor/uPlot.LICENSE"
    assert all((static / name).stat().st_size for name in names.split())


def main() -> None:
    """Serve an application with the installed command, scrape it and stop it."""
    assert ".venv-wheel" in hr_prometheus.__file__, hr_prometheus.__file__
    assert (pathlib.Path(hr_prometheus.__file__).parent / "py.typed").exists()
    assert len([each for each in requires("hr-prometheus") if "extra" not in each]) == 3
    command = os.path.join(os.path.dirname(sys.executable), "hr-prometheus")
    with tempfile.TemporaryDirectory() as directory:
        (pathlib.Path(directory) / "wheel_app.py").write_text(APP)
        process = subprocess.Popen(
            [command, "run", "wheel_app:app", "--port", "0"], cwd=directory, stdout=subprocess.PIPE, text=True
        )
        try:
            url = process.stdout.readline().partition("metrics on ")[2].split()[0]
            with urllib.request.urlopen(url, timeout=20) as response:
                assert b"requests_in_progress" in response.read()
            check_page()
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
    sys.stdout.write(f"hr-prometheus {version('hr-prometheus')}: the wheel works\n")


main()
