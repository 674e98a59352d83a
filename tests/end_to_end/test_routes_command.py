"""hr-prometheus routes, and what it predicts."""

from __future__ import annotations

import json

import pytest
from conftest import counts, hr_prometheus
from test_serving import get, scrape

OPTIONS = [
    "--fixed-route", "get_cell_neighbour=cell_id",
    "--allow-values", "get_cell_neighbour.direction=north,south",
]  # fmt: skip


def test_the_predicted_label_is_the_one_in_the_scrape(serve):
    """The table of an application is what its metrics show, with the same options."""
    done = hr_prometheus("routes", "served:create_app", "--format", "json", *OPTIONS)
    assert done.returncode == 0, done.stderr
    labels = {route["label"] for route in json.loads(done.stdout)["routes"]}
    assert labels >= {"/", "/missing", "/cell_neighbour/{cell_id}/direction/<direction>", "unmatched", "malformed"}
    service = serve("served:create_app", "--port", "0", *OPTIONS)
    for path in ("/", "/missing", "/nowhere", "/cell_neighbour/1/direction/north", "/cell_neighbour/2/direction/up"):
        get(service.url + path)
    assert {path for _, path, _ in counts(scrape(service))} == {
        "/", "/missing", "unmatched",
        "/cell_neighbour/{cell_id}/direction/north", "/cell_neighbour/{cell_id}/direction/other",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "policy", "label"),
    [
        ({}, "kept if safe", "/cell_neighbour/{cell_id}/direction/north"),
        ({"HR_PROMETHEUS_KEEP_VALUES": "all"}, "kept", "/cell_neighbour/ada@example.org/direction/north"),
    ],
)
def test_what_may_be_secret_is_kept_only_if_that_is_wanted(serve, environment, policy, label):
    """By default an e-mail address gets into no label, in one process and in workers; the table says so."""
    done = hr_prometheus("routes", "served:create_app", **environment)
    assert f"cell_id: {policy}; direction: {policy}  " in done.stdout
    for workers in ([], ["--workers", "1"]):
        service = serve("served:create_app", "--port", "0", *workers, **environment)
        get(f"{service.url}/cell_neighbour/ada@example.org/direction/north")
        assert counts(scrape(service)) == {("GET", label, "200"): 1}


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_what_is_said_of_labels_at_the_start(serve, workers):
    """Once a start: which routes keep values, and which patterns of --exclude leave nothing out."""
    excluded = ["--exclude", "/slo", "--exclude", "/cell_neighbour/1/*", "--exclude", "/metrics"]
    service = serve("served:create_app", "--port", "0", *excluded, *workers)
    lines = [service.process.stderr.readline().partition("hr_prometheus: ")[2] for _ in range(2)]
    assert lines == [
        "1 of 6 routes keeps parameter values in labels (get_cell_neighbour.cell_id, get_cell_neighbour.direction); "
        "--fixed-route '*' groups them; see: hr-prometheus routes served:create_app\n",
        '--exclude "/slo" matches no path label, so it leaves nothing out. Did you mean "/slow"? '
        "See: hr-prometheus routes served:create_app\n",
    ]
    assert service.stop() == (0, "", "")


@pytest.mark.parametrize("command", [["routes"], ["routes", "--start"], ["rules"], ["dashboard"]])
def test_a_pattern_that_leaves_nothing_out_is_warned_of(command):
    """Each command that takes --exclude says it on standard error, and does its work."""
    excluded = ["--exclude", "/slo", "--exclude", "/cell_neighbour/1/*", "--exclude", "/metrics"]
    done = hr_prometheus(*command, "served:create_app", *excluded)
    warning = 'Warning: --exclude "/slo" matches no path label, so it leaves nothing out. Did you mean "/slow"?\n'
    assert (done.returncode, done.stderr) == (0, warning)
    assert done.stdout == hr_prometheus(*command, "served:create_app", *excluded[2:]).stdout


def test_a_start_up_may_add_what_a_pattern_is_for():
    """The warning says so, unless the start-up was run."""
    asked = ["routes", "starting:works", "--exclude", "/none"]
    warning = 'Warning: --exclude "/none" matches no path label, so it leaves nothing out.'
    assert hr_prometheus(*asked).stderr == f"{warning} The application's start-up may add a route for it.\n"
    assert warning + "\n" in hr_prometheus(*asked, "--start").stderr


@pytest.mark.parametrize(
    "options", [("--fixed-route", "*"), ("--path-budget", "0"), ("--exclude", "/cell_neighbour/*")]
)
def test_nothing_is_said_if_nothing_is_kept(serve, options):
    """Where no label has a parameter's value, the announcement is all that is printed."""
    assert serve("served:create_app", "--port", "0", *options).stop() == (0, "", "")


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_what_is_said_of_an_application_with_settings_of_its_own(serve, workers):
    """Its own call is where they can be changed, so no option is named as the cure."""
    err = serve("instrumented:keeps", "--port", "0", *workers).stop()[2]
    assert err.count('; fixed_routes_parameters={"*": ["*"]} in the application\'s own call groups them; ') == 1
    assert "--" not in err


@pytest.mark.parametrize("target", ["starting:works", "served:create_app_async", "script.py", "package"])
def test_nothing_is_started(target):
    """The application is made but not started, also that of a script or of an async factory."""
    done = hr_prometheus("routes", target)
    assert (done.returncode, done.stderr) == (0, "")
    assert "starts up" not in done.stdout
    assert "goes on" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("At worst ")


def test_an_application_with_settings_of_its_own():
    """What carries the middleware already is shown with its own settings, and options that cannot apply are named."""
    done = hr_prometheus("routes", "instrumented:keeps", "--path-budget", "7", HR_PROMETHEUS_EXCLUDE="/a/*")
    assert "/a/<id>" in done.stdout
    assert "/metrics" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("At worst 4,830 ")  # basic, as hrprometheus_middleware() has it
    ignored = '--path-budget, HR_PROMETHEUS_EXCLUDE="/a/*" (values are separated by spaces)'
    assert done.stderr.startswith("Warning: The application carries hrprometheus_middleware() already ")
    assert done.stderr.endswith(f"; ignored: {ignored}.\n")


def test_json_is_nothing_but_json():
    """What the application prints while it is made goes to standard error."""
    done = hr_prometheus("routes", "starting:works", "--format", "json", "--", "chatty")
    document = json.loads(done.stdout)
    assert document["routes"][-1]["label"] == "malformed"
    assert document["all_methods"] == ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    assert done.stderr == "the application is made\n"


def test_too_many_series():
    """--max-series is for a pipeline: exit code 4, and a sentence which says what to do."""
    done = hr_prometheus("routes", "served:create_app", "--max-series", "100")
    assert done.returncode == 4
    assert "and --max-series is 100. Fix parameters with --fixed-route" in done.stderr
    assert hr_prometheus("routes", "served:create_app", "--max-series", "1000000").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["serveed:app"], 2, 'there is no module "serveed". Did you mean "served"?'),
        (["factories:raises"], 3, "RuntimeError: no database"),
        (["factories:raises_async"], 3, "RuntimeError: no database"),
        (["factories:returns_nothing_async"], 2, "its value is None"),
        (["served:app", "--allow-values", "get_cell_neighbour=north"], 2, "is not understood. Expected NAME.PARAM="),
        (["served:app", "--allow-values", "get_cell_neighbour.up=a"], 2, 'has no parameter "up"'),
        (["factories:exits"], 2, "exited before it returned an application"),
        (["runs_nothing.py"], 2, "its value is None"),
        (["served:app", "--app-dir", "none"], 2, '--app-dir "none" is not a directory'),
    ],
)
def test_what_can_go_wrong(arguments, code, words):
    """The same sentences and exit codes as for run."""
    done = hr_prometheus("routes", *arguments)
    assert words in done.stderr
    assert done.returncode == code


def test_patterns_with_a_comma_in_the_environment():
    """The warning names the variable, how its values are separated, and no pattern that is not meant."""
    done = hr_prometheus("routes", "served:app", HR_PROMETHEUS_EXCLUDE="/slow,/missing")
    assert done.stderr == (
        'Warning: HR_PROMETHEUS_EXCLUDE="/slow,/missing" (values are separated by spaces): "/slow,/missing" matches no path '
        "label, so it leaves nothing out. Commas do not separate patterns.\n"
    )
