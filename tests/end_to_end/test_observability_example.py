"""examples/observability: its files are those that are made today, and they fit each other."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import DEADLINE, clean_environment, hr_prometheus
from simulated_rules import apart, keep

from hr_prometheus.commands.group import cli

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
EXAMPLE = EXAMPLES / "observability"
GENERATED = ["dashboard.json", "rules.yml", "rules-tests.yml"]


def read(name):
    return yaml.safe_load((EXAMPLE / name).read_text())


def test_the_files_are_those_that_are_made_today(tmp_path):
    """generate.sh makes the same files again, letter for letter; run it when this fails."""
    shutil.copy(EXAMPLES / "service.py", tmp_path)
    shutil.copytree(EXAMPLE, tmp_path / "observability")
    for name in GENERATED:
        (tmp_path / "observability" / name).unlink()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [tmp_path / "observability" / "generate.sh"],
        env=clean_environment(PATH=path), capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for name in GENERATED:
        assert (tmp_path / "observability" / name).read_text() == (EXAMPLE / name).read_text(), name


def test_promtool_accepts_them(promtool, tmp_path):
    """The configuration with its rules, and the rules in simulated time.

    Days are simulated of errors only: of latencies tests/test_observability_rule_tests.py does so.
    """
    checked = promtool("check", "config", EXAMPLE / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    files = [Path(shutil.copy(EXAMPLE / name, tmp_path)) for name in ("rules.yml", "rules-tests.yml")]
    assert keep(files[1], "^(?!.*latency.* minutes$)")
    assert promtool("test", "rules", *apart(*files)).stdout.count("SUCCESS\n\n") == 2


@pytest.fixture
def compose():
    return read("docker-compose.yml")["services"]


def test_what_is_served_is_what_is_scraped(compose):
    """The command is one of ours, its metrics are where Prometheus looks for them, under the job of the rules."""
    options, target = {}, None
    words = shlex.split(compose["service"]["command"].partition(" -- ")[0])
    assert words.pop(0) == "run"
    known = {name: option for option in cli.commands["run"].params for name in option.opts}
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            options[word] = words.pop(0)
        else:
            target = word
    assert (EXAMPLES.parent / target.partition(":")[0]).is_file()
    assert options.keys() <= known.keys()
    assert options["--workers"] == "2"
    shared = ("--host", "service", "--metrics-port", options["--metrics-port"], "--job", "cells")
    assert hr_prometheus("scrape-config", *shared).stdout.partition("\n")[2] in (EXAMPLE / "prometheus.yml").read_text()
    assert 'job="cells"' in (EXAMPLE / "rules.yml").read_text()
    for name in ("--fixed-route", "--exclude"):
        assert f"{name} {options[name]}" in (EXAMPLE / "generate.sh").read_text()


def test_the_services_find_each_other_and_their_files(compose):
    """Every mounted file is there, every image has a version, and Grafana asks the Prometheus that there is."""
    assert set(compose) == {"service", "prometheus", "grafana"}
    targets = {}
    for service in compose.values():
        assert "build" in service or service["image"].rpartition(":")[2] not in ("", "latest")
        for volume in service.get("volumes", ()):
            source, target, mode = volume.split(":")
            assert (EXAMPLE / source).is_file()
            assert mode == "ro"
            targets[target] = source
    build = compose["service"]["build"]
    assert (EXAMPLE / build["context"]).resolve() == EXAMPLES.parent
    assert (EXAMPLES.parent / build["dockerfile"]).is_file()
    (source,) = read("grafana-datasource.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = read("grafana-dashboards.yml")["providers"]
    home = compose["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/dashboard.json"
    assert targets[home] == "./dashboard.json"
    assert f"/etc/prometheus/{read('prometheus.yml')['rule_files'][0]}" in targets


def test_the_picture_is_in_the_manual():
    """It is there, and small enough to be looked at."""
    assert "/examples/observability/dashboard.png)" in (EXAMPLES.parent / "docs" / "how-to" / "grafana.md").read_text()
    picture = (EXAMPLE / "dashboard.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 150_000


def test_what_is_drawn_is_in_the_dashboard():
    """picture.py draws rows by their titles, and knows how to draw each panel that stands in them."""
    source = (EXAMPLE / "picture.py").read_text()
    rows = ast.literal_eval(re.search(r"^ROWS = (.*)$", source, re.MULTILINE)[1])
    kinds, row = set(), None
    titles = [panel["title"] for panel in read("dashboard.json")["panels"] if panel["type"] == "row"]
    assert set(rows) <= set(titles)
    for panel in read("dashboard.json")["panels"]:
        row = panel["title"] if panel["type"] == "row" else row
        if row in rows and panel["type"] != "row":
            kinds.add(panel["type"])
    assert kinds == set(re.findall(r'"(\w+)": draw_', source))
