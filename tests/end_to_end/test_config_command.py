"""The command config: every setting, its value, and where it comes from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from conftest import hr_prometheus

from hr_prometheus.commands.group import cli
from hr_prometheus.commands.parameters import Parameter
from hr_prometheus.commands.sources import commands_of

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "configuration.md").read_text()
COMMANDS = commands_of(click.Context(cli))


def rows(*arguments, **changes):
    """Return the lines of the table, each in its three columns."""
    done = hr_prometheus("config", *arguments, **changes)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    lines = [re.split(r" {2,}", line) for line in done.stdout.splitlines()]
    assert lines[0] == ["SETTING", "VALUE", "FROM"]
    return lines[1:]


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_every_setting_is_shown(tmp_path, name):
    """Of each command its arguments and its options, with what the help says of their defaults."""
    commands = {name: COMMANDS[name]} if name else COMMANDS
    keys = {each.key for command in commands.values() for each in command.params if isinstance(each, Parameter)}
    table = rows(*([name] if name else []), cwd=tmp_path)
    assert {line[0].partition(" (")[0] for line in table} == keys
    assert {line[2] for line in table} == {"default"}
    shown = {line[0]: line[1] for line in table}
    if name == "run":
        assert (shown["port"], shown["loop-metrics"], shown["access-log"], shown["workers"], shown["certfile"]) == (
            "8080", "true", "where it has a format", "one process, without a supervisor", "-",
        )  # fmt: skip
    document = json.loads(hr_prometheus("config", "--format", "json", *([name] if name else []), cwd=tmp_path).stdout)
    for row in document["settings"]:
        owners = {
            command
            for command in commands
            if row["name"] in {each.key for each in cli.commands[command].params if isinstance(each, Parameter)}
        }
        assert {*row["commands"]} == owners


def test_where_they_come_from(tmp_path):
    """The line of a file, a variable with the line that sets it, an option, an argument."""
    (tmp_path / "hr-prometheus.toml").write_text(
        "env-file = '.env'\nexclude = ['/a', '/b']\nslow = 2.5\nstatus = false\n"
    )
    (tmp_path / ".env").write_text("\nHR_PROMETHEUS_HOST=::1\n")
    table = rows(
        "run", "--port", "0", "--no-loop-metrics", "a:b", "--", "x", cwd=tmp_path, HR_PROMETHEUS_DETAIL="basic"
    )
    assert [line for line in table if line[2] != "default"] == [
        ["target", "a:b", "argument"],
        ["arguments", "x", "argument"],
        ["host", "::1", "HR_PROMETHEUS_HOST (.env, line 2)"],
        ["port", "0", "--port"],
        ["status", "false", "hr-prometheus.toml, line 4"],
        ["slow", "2.5", "hr-prometheus.toml, line 3"],
        ["exclude", "/a", "/b", "hr-prometheus.toml, line 2"],
        ["detail", "basic", "HR_PROMETHEUS_DETAIL"],
        ["loop-metrics", "false", "--loop-metrics"],
        ["env-file", ".env", "hr-prometheus.toml, line 1"],
    ]
    assert ["config", "hr-prometheus.toml", "default"] in table


def test_a_file_that_is_not_read(tmp_path):
    """With --no-config there is none, whatever a variable names; an option wins over the variable."""
    (tmp_path / "hr-prometheus.toml").write_text("port = 1")
    for arguments, changes in ((("--no-config",), {}), ((), {"HR_PROMETHEUS_NO_CONFIG": "1"})):
        table = rows(*arguments, "run", cwd=tmp_path, HR_PROMETHEUS_CONFIG="hr-prometheus.toml", **changes)
        assert ["config", "-", "default"] in table
        assert ["port", "8080", "default"] in table
    table = rows("--config", "hr-prometheus.toml", "run", cwd=tmp_path, HR_PROMETHEUS_NO_CONFIG="1")
    assert ["config", "hr-prometheus.toml", "--config"] in table


def test_a_setting_that_differs_between_commands(tmp_path):
    """It has a line for each value, with the commands that have it."""
    (tmp_path / "hr-prometheus.toml").write_text("port = 1\n[scrape-config]\nport = 2\n[rules]\noutput = 'r.yml'\n")
    table = rows(cwd=tmp_path)
    assert ["port (run)", "1", "hr-prometheus.toml, line 1"] in table
    assert ["port (scrape-config)", "2", "hr-prometheus.toml, line 3"] in table
    assert ["output (rules)", "r.yml", "hr-prometheus.toml, line 5"] in table
    assert ["output (dashboard, scrape-config)", "-", "default"] in table


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("keyfile = 'k'", "keyfile on line 1 of hr-prometheus.toml was given without --certfile."),
        ("fixed-route = ['x']", 'fixed-route "x" on line 1 of hr-prometheus.toml is not understood.'),
        ("prot = 1", '"prot" on line 1 of hr-prometheus.toml is not a setting'),
    ],
)
@pytest.mark.parametrize("arguments", [["--check"], [], ["--check", "run", "a:b"]], ids=str)
def test_a_setting_that_is_wrong(tmp_path, content, sentence, arguments):
    """It is an error, with --check and without; settings that only contradict each other are shown before it."""
    (tmp_path / "hr-prometheus.toml").write_text(content)
    done = hr_prometheus("config", *arguments, cwd=tmp_path)
    assert done.stderr.startswith(f"Error: {sentence}")
    assert done.stderr.count("\n") == 1
    assert done.returncode == 2
    assert bool(done.stdout) == (content.startswith("keyfile") and not arguments)


WRONG = [
    ("--metrics-path", "metrics"), ("--status-path", "status"), ("--metric-prefix", "1"), ("--buckets", "5,1"),
    ("--label", "a-b=handler"), ("--label", "path=handler"), ("--label", "x=nosuch:y"), ("--label", "outcome=route", "--latency-by-status"),
    ("--exclude-method", "get"), ("--monitor", "m:"), ("--certfile", "none.pem"), ("--certfile", "no.pem"), ("--keyfile", "no.pem"),
    ("--log-config", "none.json"), ("--log-config", "no.json"), ("--log-config", "no.json", "--log-format", "json"),
    ("--port", "7001", "--metrics-port", "7001"), ("--unix-mode", "660"),
    ("--access-log-format", "%Q"), ("--access-log-format", "%a", "--no-access-log"), ("--forwarded-allow-ips", "proxy"),
    ("--reload-dir", "nowhere"), ("--reload", "--reload-dir", "nowhere"), ("--host", "localhost:80"),
    ("--metrics-port", "0", "--metrics-certfile", "no.pem"), ("--metrics-port", "0", "--metrics-token-file", "none"),
    ("--metrics-port", "0", "--metrics-web-config", "no.pem"), ("--metrics-token-file", "no.pem"), ("--pid-file", "none/pid"),
]  # fmt: skip


@pytest.mark.parametrize("options", WRONG, ids=" ".join)
def test_what_run_refuses_before_the_application_is_imported(tmp_path, options):
    """It is an error of --check as well, in the same words and with the same exit code."""
    (tmp_path / "app.py").write_text("from aiohttp import web\napp = web.Application()\n")
    (tmp_path / "no.pem").write_text("no certificate")
    (tmp_path / "no.json").write_text('{"version": 1, "handlers": 3}')
    run = hr_prometheus("run", "app:app", "--port", "0", *options, cwd=tmp_path)
    check = hr_prometheus("config", "--check", "run", "app:app", "--port", "0", *options, cwd=tmp_path)
    assert run.stderr.startswith("Error: ")
    assert (check.stdout, check.stderr, check.returncode) == ("", run.stderr, run.returncode)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "nowhere.py"], 'there is no file "nowhere.py"'),
        (
            ["run", "app.py", "--workers", "2"],
            '--workers: "app.py" is a script, whose addresses are known only when it has run.',
        ),
        (["run", "a:b", "--port", "7001", "--metrics-port", "7001"], "--metrics-port 7001 is the application's port."),
        (["run", "a:b()"], 'the target "a:b()" has parentheses.'),
        (["rules", "--label", "a-b=handler"], '--label "a-b=handler" cannot be the name of a label.'),
        (["scrape-config", "--metrics-path", "x"], '--metrics-path "x" cannot be served.'),
        (["routes", "a:b", "--buckets", "5,1"], '--buckets "5,1": invalid buckets.'),
    ],
)
def test_other_settings_that_are_checked(tmp_path, arguments, sentence):
    """Targets as far as they are known without an import, and what other commands share with run."""
    done = hr_prometheus("config", "--check", *arguments, cwd=tmp_path)
    assert done.stderr.startswith(f"Error: {sentence}")
    assert done.returncode == 2


def test_the_permissions_of_a_socket_that_a_script_may_have(tmp_path):
    """They are right for a script, and for a target that is not typed yet."""
    (tmp_path / "app.py").touch()
    for command in ((), ("run", "app.py")):
        done = hr_prometheus("config", "--check", *command, cwd=tmp_path, HR_PROMETHEUS_UNIX_MODE="660")
        assert done.stdout == "No errors.\n"


def test_a_certificate_that_a_command_does_not_read(tmp_path):
    """It is no error of this command's, although it would be one of run's."""
    (tmp_path / "hr-prometheus.toml").write_text("certfile = 'none.pem'")
    assert hr_prometheus("config", "--check", "scrape-config", cwd=tmp_path).stdout == "No errors.\n"
    done = hr_prometheus("config", "--check", cwd=tmp_path)
    assert done.stderr == (
        'Error: certfile "none.pem" on line 1 of hr-prometheus.toml: No such file or directory. Expected a certificate chain in '
        "PEM format.\n"
    )
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("port = 0", "Error: Missing argument 'TARGET'. Type it, or have it as target in a configuration file.\n"),
        ("target = ''", 'Error: the target "" on line 1 of hr-prometheus.toml is not understood.'),
        ("env-file = 'no.env'", "(env-file on line 1 of hr-prometheus.toml)\n"),
    ],
)
def test_what_is_missing_in_the_file(tmp_path, content, words):
    """It is what run says."""
    (tmp_path / "hr-prometheus.toml").write_text(content)
    (tmp_path / "no.env").write_text("x\n")
    done = hr_prometheus("config", "--check", "run", cwd=tmp_path)
    assert words in done.stderr
    assert (done.stderr, done.returncode) == (hr_prometheus("run", cwd=tmp_path).stderr, 2)


def test_nothing_is_imported_or_written(tmp_path):
    """Neither the application, nor files where prometheus_client keeps numbers of several processes."""
    (tmp_path / "app.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "numbers").mkdir()
    variables = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "numbers")}
    done = hr_prometheus("config", "--check", "run", "app:app", "--monitor", "app:M", cwd=tmp_path, **variables)
    assert (done.stdout, done.stderr) == ("No errors.\n", "")
    assert not list((tmp_path / "numbers").iterdir())


def test_check_prints_one_line(tmp_path):
    """If there is no error."""
    (tmp_path / "hr-prometheus.toml").write_text("port = 1")
    done = hr_prometheus("config", "--check", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "No errors.\n", "")


def test_a_value_that_is_no_text(tmp_path):
    """What cannot be printed is escaped, so that a setting stays a line."""
    assert rows("run", "a:b", "--", "x\ny", "\udcff", cwd=tmp_path)[1] == ["arguments", "x\\ny", "\\udcff", "argument"]
    done = hr_prometheus("config", "--format", "json", "run", "a:b", "--", "x\ny", "\udcff", cwd=tmp_path)
    assert json.loads(done.stdout)["settings"][1]["value"] == ["x\ny", "\udcff"]


def test_a_long_value(tmp_path):
    """It is shown as a whole, without room beside it in the other lines, and costs no more than its length."""
    (tmp_path / "hr-prometheus.toml").write_text(f"host = '{'a' * 300_000}'")
    lines = hr_prometheus("config", cwd=tmp_path).stdout.splitlines()
    assert [len(line) > 200 for line in lines].count(True) == 1


def test_passwords_are_hidden(tmp_path):
    """As everywhere else."""
    assert rows("top", "https://me:secret@host:9100", cwd=tmp_path)[0] == ["url", "https://***@host:9100", "argument"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnu"], 'No such command "rnu". Did you mean "run"?'),
        (["config"], 'No such command "config".'),
        (["run", "--check"], '"--check" is an option of config. Give it before "run".'),
        (["run", "--format", "json"], '"--format" is an option of config. Give it before "run".'),
        (["run", "--nonsense"], "--nonsense"),
        (["run", "--port", "x"], 'Invalid value for --port "x": expected a whole number'),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_words_that_are_not_understood(tmp_path, arguments, words):
    """Each is named, and what was meant."""
    done = hr_prometheus("config", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]


def test_the_manual_shows_what_is_printed(tmp_path):
    """Its file is right, and the lines of its table are lines of the table for that file."""
    (file,) = re.findall(r"```toml\n(# pyproject.toml\n.*?)```", PAGE, re.DOTALL)
    (tmp_path / "pyproject.toml").write_text(file)
    assert hr_prometheus("config", "--check", cwd=tmp_path).stdout == "No errors.\n"
    (words, lines) = re.search(r"\$ hr-prometheus config (run.*)\n((?:.*\n)*?)```", PAGE).groups()
    printed = hr_prometheus("config", *words.split(), cwd=tmp_path).stdout.splitlines()
    for line in lines.splitlines():
        assert line == "…" or line.split() in [each.split() for each in printed], line
