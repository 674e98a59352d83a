"""hr-prometheus rules, scrape-config and dashboard, as a user has them."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml
from conftest import APPS, DEADLINE, RUN, clean_environment, hr_prometheus
from simulated_rules import apart


def test_rules_and_their_tests(tmp_path, promtool):
    """Both files are written, in directories of their own, and the one finds the other."""
    (tmp_path / "tests").mkdir()
    rules, tests = tmp_path / "rules.yml", tmp_path / "tests" / "rules.yml"
    done = hr_prometheus(
        "rules", "observed:create_app", "--objective", "99.5", "--objective", "item=99",
        "--output", str(rules), "--tests", str(tests),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert promtool("check", "rules", rules).returncode == 0
    assert yaml.safe_load(tests.read_text())["rule_files"] == ["../rules.yml"]
    assert promtool("test", "rules", *apart(rules, tests)).stdout.count("SUCCESS\n\n") == 2


def test_what_the_application_says_of_itself():
    """One that carries the middleware has the names, the buckets, the outcomes and the detail that it was given."""
    text = hr_prometheus("rules", "instrumented:with_settings", "--latency", "0.3").stdout
    assert "own_http_requests_total{" in text
    assert re.search(r'outcome="ok",.*,le="0.3"', text)
    assert 'le="0.3"' in text
    assert "size_bytes" not in text


@pytest.mark.parametrize("command", ["dashboard", "rules"])
def test_buckets_that_have_nothing_in_common(command):
    """It is said that several routes together have no quantiles."""
    done = hr_prometheus(command, "--buckets", "report=30,60", "--buckets", "0.5,1", "--job", "shop")
    assert done.stderr == (
        'Warning: The buckets of the route "report" have no bound in common with those of other routes, so there are '
        "no quantiles of several routes together. Keep some bounds in common.\n"
    )
    assert not hr_prometheus(command, "--buckets", "report=1,60", "--buckets", "0.5,1").stderr


def test_nothing_but_the_file_is_printed():
    """What the application prints while it is made goes to standard error; without a target nothing is made."""
    done = hr_prometheus("rules", "starting:works", "--job", "shop", "--", "chatty")
    assert done.stderr == "the application is made\n"
    assert yaml.safe_load(done.stdout)["groups"][0]["name"] == "shop: routes"
    assert (
        yaml.safe_load(hr_prometheus("rules", HR_PROMETHEUS_JOB="shop").stdout)["groups"][0]["name"] == "shop: routes"
    )


def test_dashboard(tmp_path):
    """The same file each time, with a row for each route; without a target, that of any application."""
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    for file, seed in ((first, "1"), (second, "2")):
        done = hr_prometheus(
            "dashboard", "observed:create_app", "--metric-prefix", "app_", "--output", str(file), PYTHONHASHSEED=seed
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert first.read_text() == second.read_text()
    titles = [panel["title"] for panel in json.loads(first.read_text())["panels"] if panel["type"] == "row"]
    assert titles[-1] == "HEAD,GET /talk (talk)"
    assert "/talk" not in hr_prometheus("dashboard").stdout


def test_dashboard_without_the_library_of_grafana(tmp_path):
    """One sentence, which says what to install."""
    (tmp_path / "grafana_foundation_sdk.py").touch()
    done = subprocess.run(  # not in a fork, which has imported it
        [*RUN[:-1], "dashboard"], env=clean_environment(PYTHONPATH=str(tmp_path)),
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.stderr == (
        "Error: dashboards are made with grafana-foundation-sdk, which is not installed. Install hr-prometheus with the "
        'extra "dashboards".\n'
    )
    assert done.returncode == 2


def test_scrape_config():
    """The options of run say where the metrics are."""
    options = ("--host", "0.0.0.0", "--metrics-port", "9100", "--job", "shop")  # noqa: S104
    assert '- "127.0.0.1:9100"' in hr_prometheus("scrape-config", *options).stdout
    assert "kind: PodMonitor" in hr_prometheus("scrape-config", *options, "--kubernetes").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["rules", "observed:creat_app"], 2, 'Did you mean "create_app"?'),
        (["rules", "observed:create_app", "--objective", "itm=99"], 2, 'no route named "itm". Did you mean "item"?'),
        (["rules", "--objective", "item=99"], 2, "Give its TARGET as well."),
        (["rules", "--objective", "100"], 2, "Expected a percentage from 50 to below 100"),
        (["rules", "--objective", "0.999"], 2, '"0.999" is below 50. Expected percent of the requests'),
        (["rules", "--latency", "0.3"], 2, "Take 0.25 or 0.5, or add it to --buckets"),
        (["rules", "--tests", "x.yml"], 2, "--tests was given without --output"),
        (["rules", "--output", "no/x.yml"], 1, '"no/x.yml" cannot be written: No such file or directory'),
        (["rules", "factories:raises"], 3, "RuntimeError: no database"),
        (["dashboard", "observed:create_app", "--fixed-route", "itm=*"], 2, 'Did you mean "item"?'),
        (["scrape-config", "--port", "0"], 2, "Choose a port."),
    ],
)
def test_what_can_go_wrong(arguments, code, words):
    """One clear sentence, and the exit codes of run."""
    done = hr_prometheus(*arguments)
    assert words in done.stderr
    assert done.returncode == code
    assert done.stdout == ""
    assert not (APPS / "x.yml").exists()
