"""A configuration file: where it is looked for, what wins, and what is said of one that is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import urllib.request

import pytest
from conftest import APPS, SLOW_START, hr_prometheus

USAGE = 2

#: Wrong contents of an hr-prometheus.toml, each with the error.
WRONG = [
    # not TOML
    ("port\n", "is not valid TOML: Expected '=' after a key in a key/value pair (at line 1, column 5)"),
    ("port = ", "is not valid TOML: Invalid value (at "),
    ("port = 8080 9090", "is not valid TOML: Expected newline or end of document after a statement (at line 1"),
    ("port = http", "is not valid TOML: Invalid value (at line 1"),
    ("port = 1\nport = 2", "is not valid TOML: Cannot overwrite a value (at "),
    ("[run]\n[run]", "is not valid TOML: Cannot declare ('run',) twice (at line 2"),
    ("exclude = ['/a'", "is not valid TOML: Unclosed array (at "),
    ("host = 'a", "is not valid TOML: "),
    ('host = "a\\q"', "is not valid TOML: Unescaped '\\' in a string (at "),
    ("\na = " + "[" * 5000, '"hr-prometheus.toml" is not valid TOML: line 2 is nested too deeply. Correct it, or leave it out with --no-config.'),
    ("\nport = " + "9" * 5000, "is not valid TOML: line 2 has a number of 5000 digits. Correct it"),
    ("\nslow = 1_000" + "_000" * 2000 + ".5", "slow Infinity on line 2 of hr-prometheus.toml: expected a number of seconds"),
    ("port: 8080", "is not valid TOML: Expected '=' after a key"),
    ('{"port": 8080}', "is not valid TOML: Invalid statement (at line 1, column 1)"),
    (b"host = '\xff'", "is not valid TOML: line 1 is not UTF-8."),
    (b"a = 1\n\xff\xfe", "is not valid TOML: line 2 is not UTF-8."),
    ("port = 1\0", "is not valid TOML: "),
    # keys
    ("prot = 1", '"prot" on line 1 of hr-prometheus.toml is not a setting of hr-prometheus. Did you mean "port"?'),
    ("Port = 1", '"Port" on line 1 of hr-prometheus.toml is not a setting of hr-prometheus. Did you mean "port"?'),
    ("FIXED-ROUTE = 1", 'Did you mean "fixed-route"?'),
    ("metrics_port = 1", '"metrics_port" on line 1 of hr-prometheus.toml is not a setting of hr-prometheus. Did you mean "metrics-port"?'),
    ("--port = 1", '"--port" on line 1 of hr-prometheus.toml is not a setting of hr-prometheus. Did you mean "port"?'),
    ("P = 1", '"P" on line 1 of hr-prometheus.toml is not a setting of hr-prometheus.'),
    ("zzzzzz = 1", '"zzzzzz" on line 1 of hr-prometheus.toml is not a setting of hr-prometheus.'),
    ("'' = 1", '"" on line 1 of hr-prometheus.toml is not a setting of hr-prometheus.'),
    ('"a\\nb" = 1', '"a\\nb" on line 1 of hr-prometheus.toml is not a setting of hr-prometheus.'),
    ("\n# c\nx.y.z = 1", '"x" on line 3 of hr-prometheus.toml is not a setting of hr-prometheus.'),
    ("no-status = true", '"no-status" on line 1 of hr-prometheus.toml is not a setting of hr-prometheus. Write status = false.'),
    ("no-loop-metrics = true", "Write loop-metrics = false."),
    ("config = 'other.toml'", '"config" on line 1 of hr-prometheus.toml is not a setting of hr-prometheus. It chooses the file. Type it on the command line: --config FILE.'),
    ("no-config = true", '"no-config" on line 1 of hr-prometheus.toml is not a setting of hr-prometheus. It chooses the file. Type it on the command line: --no-config.'),
    ("help = true", '"help" on line 1'),
    ("version = 1", '"version" on line 1'),
    ("run = 1", '"run" on line 1 of hr-prometheus.toml is not a setting of hr-prometheus. Expected a table with settings for the command run.'),
    ("run = ['x']", "Expected a table with settings for the command run."),
    ("[rnu]\nport = 1", '"rnu" on line 1 of hr-prometheus.toml is not a setting of hr-prometheus. Did you mean "run"?'),
    ("[run]\n\nprot = 1", '"prot" on line 3 of hr-prometheus.toml is not a setting of "run". Did you mean "port"?'),
    ("[rules]\nport = 1", '"port" on line 2 of hr-prometheus.toml is not a setting of "rules". It is one of "run", "scrape-config".'),
    ("[run]\nobjective = ['99']", '"objective" on line 2 of hr-prometheus.toml is not a setting of "run". It is one of "rules".'),
    ("[run]\nno-access-log = true", '"no-access-log" on line 2 of hr-prometheus.toml is not a setting of "run". Write access-log = false.'),
    ("[[run]]\nport = 1", '"run" on line 1 of hr-prometheus.toml is not a setting of hr-prometheus. Expected a table'),
    ("[run.rules]\nport = 1", '"rules" on line 1 of hr-prometheus.toml is not a setting of "run".'),
    ("[top]\nunknown = 1", '"unknown" on line 2 of hr-prometheus.toml is not a setting of "top".'),
    ("[tool.hr-prometheus]\nport = 1", '"tool" on line 1 of hr-prometheus.toml is not a setting of hr-prometheus. Only in pyproject.toml the settings are in [tool.hr-prometheus].'),
    # numbers
    *(
        (f"port = {value}", f"port {shown or value} on line 1 of hr-prometheus.toml: expected a whole number from 0 to 65535, for example 8080.")
        for value, shown in [
            ("'http'", '"http"'), ('"8080"', None), ("80.5", None), ("8080.0", None), ("true", None), ("-1", None), ("65536", None),
            ("[8080]", None), ("{}", None), ("inf", "Infinity"), ("nan", "NaN"), ("1979-05-27", None), ("''", '""'),
            ("99999999999999999999", None), ("0x" + "f" * 5000, "…"),
        ]
    ),
    *(
        (f"slow = {value}", f"slow {shown or value} on line 1 of hr-prometheus.toml: expected a number of seconds, from 0 on and without a unit, for example 0.5.")
        for value, shown in [
            ("'1s'", '"1s"'), ('"1"', None), ("false", None), ("-0.1", None), ("nan", "NaN"), ("inf", "Infinity"), ("-inf", "-Infinity"),
            ("1e10", "10000000000.0"), ("[1]", None), ("{a = 1}", '{"a": 1}'), ("07:32:00", None), ("1" * 400, "1" * 60 + "…"),
        ]
    ),
    ("[rules]\nleast-requests = 1.5", "rules.least-requests 1.5 on line 2 of hr-prometheus.toml: expected a whole number from 0 on, for example 100."),
    ("[top]\ninterval = 0.1", "top.interval 0.1 on line 2 of hr-prometheus.toml: expected a number of seconds, from 0.2 on"),
    # flags
    *(
        (f"status = {value}", f"status {shown} on line 1 of hr-prometheus.toml: expected true or false, without quotes.")
        for value, shown in [("'true'", '"true"'), ("1", "1"), ("0", "0"), ("[]", "[]"), ("[true]", "[true]"), ("{}", "{}"), ("''", '""')]
    ),
    ("native-histograms = 1", 'native-histograms 1 on line 1 of hr-prometheus.toml: expected true, false, "only" or "both".'),
    ("native-histograms = 'yea'", "native-histograms \"yea\" on line 1 of hr-prometheus.toml: 'yea' is not one of 'only', 'both'."),
    ("client-metrics = [true]", 'client-metrics [true] on line 1 of hr-prometheus.toml: expected true, false, "kept" or "all".'),
    ("[scrape-config]\nkubernetes = 'yes'", 'scrape-config.kubernetes "yes" on line 2'),
    ("status = True", "is not valid TOML: Invalid value (at line 1"),
    # texts
    *(
        (f"host = {value}", f"host {shown} on line 1 of hr-prometheus.toml: expected a string{more}.")
        for value, shown, more in [
            ("5", "5", ': host = "5"'), ("1.5", "1.5", ': host = "1.5"'), ("true", "true", ""), ("['a']", '["a"]', ""), ("{a = 'b'}", '{"a": "b"}', ""),
            ("2026-01-01", "2026-01-01", ', not a date: host = "2026-01-01"'), ("07:32:00", "07:32:00", ', not a time: host = "07:32:00"'),
            ("''", '""', " that is not empty"), ("'a\\u0000b'".replace("'", '"'), '"a\\u0000b"', " without control characters"),
            ('"a\\nb"', '"a\\nb"', " without control characters"), ('"""\na\nb"""', '"a\\nb"', " without control characters"),
        ]
    ),
    ("unix-mode = 0o660", 'unix-mode 432 on line 1 of hr-prometheus.toml: expected a string: unix-mode = "660".'),
    ("target = 1", "target 1 on line 1 of hr-prometheus.toml: expected a string"),
    ("target = ['a:b']", 'target ["a:b"] on line 1 of hr-prometheus.toml: expected a string.'),
    ("log-level = 'loud'", "log-level \"loud\" on line 1 of hr-prometheus.toml: 'loud' is not one of 'debug', 'info'"),
    ("log-level = 10", "log-level 10 on line 1 of hr-prometheus.toml: expected a string"),
    ("keep-values = 'none'", "'none' is not one of 'safe', 'all'."),
    ("[top]\nsort = 'name'", 'top.sort "name" on line 2'),
    ("[routes]\nformat = 'yaml'", 'routes.format "yaml" on line 2'),
    ("workers = [1]", "workers [1] on line 1 of hr-prometheus.toml: expected a string or a number."),
    ("workers = [2]", "workers [2] on line 1 of hr-prometheus.toml: expected a string or a number."),
    ("workers = '2'", 'workers "2" on line 1 of hr-prometheus.toml: expected a number, without quotes: workers = 2.'),
    ("workers = true", "workers true on line 1 of hr-prometheus.toml: expected a string or a number."),
    ("buckets = [0.1, '1']", 'buckets "1" on line 1 of hr-prometheus.toml: there are others for the same routes.'),
    ("buckets = {a = [1, '2s']}", 'buckets "a=1,2s" on line 1 of hr-prometheus.toml is not understood.'),
    ("buckets = [[1]]", "buckets [1] on line 1 of hr-prometheus.toml: expected a string or a number."),
    ("buckets = {a = [[1]]}", "buckets.a [1] on line 1 of hr-prometheus.toml: expected a string or a number."),
    ("buckets = [true]", "buckets true on line 1 of hr-prometheus.toml: expected a string or a number."),
    ("fixed-route." + "a." * 3000 + "b = 1", "fixed-route … on line 1 of hr-prometheus.toml: it is nested too deeply."),
    # lists
    ("exclude = '/health'", 'exclude "/health" on line 1 of hr-prometheus.toml: expected an array of strings: exclude = ["/health"].'),
    ("fd = 3", "fd 3 on line 1 of hr-prometheus.toml: expected an array of whole numbers: fd = [3]."),
    ("exclude = 5", "exclude 5 on line 1 of hr-prometheus.toml: expected an array of strings."),
    ("exclude = {a = 'b'}", 'exclude {"a": "b"} on line 1 of hr-prometheus.toml: expected an array of strings.'),
    ("exclude = [5]", 'exclude 5 on line 1 of hr-prometheus.toml: expected a string: exclude = ["5"].'),
    ("fixed-route = {a = [5]}", 'fixed-route.a 5 on line 1 of hr-prometheus.toml: expected a string: a = ["5"].'),
    ("exclude = [['/a']]", 'exclude ["/a"] on line 1 of hr-prometheus.toml: expected a string.'),
    ("\nexclude = [\n'/a',\ntrue]", "exclude true on line 4 of hr-prometheus.toml: expected a string."),
    ("arguments = '--fast'", 'expected an array of strings: arguments = ["--fast"].'),
    ("arguments = [1]", "arguments 1 on line 1 of hr-prometheus.toml: expected a string"),
    ('arguments = ["a\\u0000"]', "expected a string without control characters."),
    ("unix-path = ''", 'unix-path "" on line 1 of hr-prometheus.toml: expected a string that is not empty.'),
    ("reload-include = [\n'*.html',\n'']", 'reload-include "" on line 3 of hr-prometheus.toml: expected a string that is not empty.'),
    ("names = [\n'http',\n'htp']", "names \"htp\" on line 3 of hr-prometheus.toml: 'htp' is not one of"),
    ("fixed-route = [\n'a=b',\n'cell']", 'fixed-route "cell" on line 3 of hr-prometheus.toml is not understood.'),
    # tables
    ("fixed-route = '*'", 'fixed-route "*" on line 1 of hr-prometheus.toml: expected an array of strings or a table: fixed-route = ["*"].'),
    ("fixed-route = true", "fixed-route true on line 1 of hr-prometheus.toml: expected an array of strings or a table."),
    ("fixed-route = {cell = 1}", "fixed-route.cell 1 on line 1 of hr-prometheus.toml: expected a string"),
    ("[fixed-route]\nx = 'y'\ncell = true", "fixed-route.cell true on line 3 of hr-prometheus.toml: expected a string."),
    ("fixed-route = {cell = ['a,b']}", 'fixed-route.cell ["a,b"] on line 1 of hr-prometheus.toml: a value in an array cannot have a comma.'),
    ("fixed-route = {'a=b' = ['c']}", 'a name cannot have "=".'),
    ("fixed-route = {cell = [['a']]}", 'fixed-route.cell ["a"] on line 1'),
    ("fixed-route = {cell = []}", 'fixed-route "cell=" on line 1 of hr-prometheus.toml is not understood. Expected NAME=PARAM'),
    ("fixed-route = ['cell']", 'fixed-route "cell" on line 1 of hr-prometheus.toml is not understood. Expected NAME=PARAM'),
    ("allow-values = {cell = ['north']}", 'allow-values "cell=north" on line 1 of hr-prometheus.toml is not understood.'),
    ("[allow-values.cell]\n\nside = [1]", "allow-values.cell.side 1 on line 3"),
    ("label = {team = ''}", 'label "team=" on line 1 of hr-prometheus.toml is not understood. Expected NAME=SOURCE'),
    ("label = {team = 5}", "label.team 5 on line 1 of hr-prometheus.toml: expected a string"),
    ("label = {team = 'header:X'}", 'label "team=header:X" on line 1 of hr-prometheus.toml has no list of values.'),
    ("[label]\na = 'const:x'\nb = 'nonsense'", 'label "b=nonsense" on line 3 of hr-prometheus.toml'),
    # what the option itself refuses, in a table of another command as well
    ("[rules]\nobjective = 101", 'objective "101" on line 2 of hr-prometheus.toml is not understood.'),
    ("[rules]\nobjective = {a = 99, b = 'x'}", 'objective "b=x" on line 2 of hr-prometheus.toml is not understood.'),
    ("[rules]\nlatency = -1", 'latency "-1" on line 2 of hr-prometheus.toml is not understood.'),
    ("[rules]\nbuckets = 'fast'", 'buckets "fast" on line 2 of hr-prometheus.toml is not understood.'),
    ("workers = 0", 'workers "0" on line 1 of hr-prometheus.toml is not understood. Expected a number from 1 to 256'),
    ("workers = 'many'", 'workers "many" on line 1 of hr-prometheus.toml is not understood.'),
    ("workers = [1, 2]", "workers [1, 2] on line 1 of hr-prometheus.toml: expected a string or a number."),
    ("unix-mode = '999'", 'unix-mode "999" on line 1 of hr-prometheus.toml is not understood.'),
    ("buckets = 'fast'", 'buckets "fast" on line 1 of hr-prometheus.toml is not understood.'),
    ("buckets = [2, 1]", 'buckets "2,1" on line 1 of hr-prometheus.toml: invalid buckets.'),
    ("keyfile = 'key.pem'", "keyfile on line 1 of hr-prometheus.toml was given without --certfile."),
    ("metrics-host = '::1'", "metrics-host on line 1 of hr-prometheus.toml was given without --metrics-port."),
    ("status = true", "status on line 1 of hr-prometheus.toml was given without --metrics-port."),
    ("worker-timeout = 5", "worker-timeout on line 1 of hr-prometheus.toml was given without --workers."),
    ("host = '127.0.0.1:80'", 'host "127.0.0.1:80" on line 1 of hr-prometheus.toml is not an address or a name alone.'),
    ("app-dir = 'none'", 'app-dir "none" on line 1 of hr-prometheus.toml is not a directory.'),
    ("metrics-path = 'x'", 'metrics-path "x" on line 1 of hr-prometheus.toml cannot be served.'),
    ("metric-prefix = '9'", 'metric-prefix "9" on line 1 of hr-prometheus.toml cannot begin a metric\'s name.'),
    ("monitor = 'monitors:Sen'", 'monitor on line 1 of hr-prometheus.toml: "monitors" has no attribute "Sen".'),
    ("exclude-method = ['OPTIONS', 'get']", 'exclude-method "get" on line 1 of hr-prometheus.toml is not understood.'),
    ("env-file = 'none.env'", 'env-file "none.env" on line 1 of hr-prometheus.toml: No such file or directory.'),
    (
        "monitor = 'monitors:M'\ndetail = 'full'",
        "monitor on line 1 of hr-prometheus.toml was given with detail on line 2 of hr-prometheus.toml, which only the default",
    ),
    # what does not fit the application
    ("fixed-route = {cells = ['id']}", 'fixed-route "cells=id" on line 1 of hr-prometheus.toml: the application has no route named "cells".'),
    ("[fixed-route]\nget_cell_neighbour = ['cell_id', 'id']", 'fixed-route "get_cell_neighbour=cell_id,id" on line 2 of hr-prometheus.toml: the route "get_cell_neighbour" has no parameter "id".'),
    ("allow-values.cells.side = ['x']", 'allow-values "cells.side=x" on line 1 of hr-prometheus.toml: the application has no route named "cells".'),
]  # fmt: skip


def is_one_sentence(done):
    """Whether a command has printed one error, nothing else, and has ended as with wrong usage."""
    assert done.returncode == USAGE, done.stderr
    assert not [line for line in done.stdout.splitlines() if not line.startswith(SLOW_START)]
    assert done.stderr.startswith("Error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.endswith((".\n", "?\n"))


@pytest.mark.parametrize(("content", "words"), WRONG)
def test_a_file_that_is_wrong(tmp_path, content, words):
    """One sentence says what is wrong, as it is written, on which line, and what was expected."""
    for name in ("served.py", "monitors.py"):
        shutil.copy(APPS / name, tmp_path)
    (tmp_path / "hr-prometheus.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    options = [f"--{name}={value}" for name, value in (("host", "127.0.0.1"), ("port", 0)) if name not in str(content)]
    done = hr_prometheus("run", "served:create_app", *options, cwd=tmp_path)
    assert is_one_sentence(done)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_there_are_enough_of_them():
    """A hundred and more."""
    assert len(WRONG) > 100


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[tool.hr-prometheus]\nprot = 1", '"prot" on line 2 of pyproject.toml is not a setting of hr-prometheus. Did you mean "port"?'),
        ("[tool]\nhr-prometheus = {\n", "is not valid TOML: "),
        ("[project]\ndependencies = ['hr-prometheus'\n", '"pyproject.toml" is not valid TOML: Unclosed array (at end of document). Correct it, or leave it out with --no-config.'),
        ("[tool.hr_prometheus]\nport = 1", "[tool.hr_prometheus] on line 1 of pyproject.toml is not read. Expected [tool.hr-prometheus]."),
        ("\n[tool.hrprometheus.run]\nport = 1", "[tool.hrprometheus] on line 2 of pyproject.toml is not read."),
        ("tool.hr-prometheus = 5", "tool.hr-prometheus on line 1 of pyproject.toml is not a table. Expected [tool.hr-prometheus], and settings below it."),
        ("[[tool.hr-prometheus]]\nport = 1", "tool.hr-prometheus on line 1 of pyproject.toml is not a table."),
        ("[tool.other]\nx = '''\n[tool.hr-prometheus]\n'''\n[tool.hr-prometheus.run]\nprot = 1", '"prot" on line 6 of pyproject.toml is not a setting of "run".'),
        ("[tool]\nhr-prometheus.run.port = 'x'", 'run.port "x" on line 2 of pyproject.toml: expected a whole number'),
    ],
)  # fmt: skip
def test_a_table_of_a_project_that_is_wrong(tmp_path, content, words):
    """It has its sentence as well, on the line of the whole file; a name that is nearly right is not passed over."""
    (tmp_path / "pyproject.toml").write_text(content)
    done = hr_prometheus("rules", cwd=tmp_path)
    assert is_one_sentence(done)
    assert words in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config", "none.toml"], '--config "none.toml" cannot be read: No such file or directory.'),
        (["--config", ""], '--config "" cannot be read: No such file or directory.'),
        (["--config", "."], '--config "." cannot be read: Is a directory.'),
        (["--config", "shop/hr.toml"], '"prot" on line 1 of shop/hr.toml is not a setting of hr-prometheus.'),
        (["--config", "shop/pyproject.toml"], '--config "shop/pyproject.toml" has no table [tool.hr-prometheus]. Expected the settings in one.'),
        (["--config", "shop/hr.toml", "--no-config"], "--config was given with --no-config. Leave one of them out."),
        (["--env-file", "none"], '--env-file "none": No such file or directory. Expected a file with lines of NAME=VALUE.'),
        (["--env-file", "shop/env"], "the setting on line 2 of shop/env is not understood. Expected NAME=VALUE"),
    ],
)  # fmt: skip
def test_a_file_that_was_chosen(tmp_path, arguments, words):
    """An error names it as it was typed."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "hr.toml").write_text("prot = 1")
    (tmp_path / "shop" / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    (tmp_path / "shop" / "env").write_text("A=1\nSECRET\n")
    for command in ("rules", "config", "run"):
        done = hr_prometheus(command, *arguments, cwd=tmp_path)
        assert is_one_sentence(done)
        assert done.stderr.startswith(f"Error: {words}")
        assert "SECRET" not in done.stderr
    variable, value = arguments[0].removeprefix("--").replace("-", "_").upper(), arguments[1]
    if value and len(arguments) == 2:
        done = hr_prometheus("rules", cwd=tmp_path, **{f"HR_PROMETHEUS_{variable}": value})
        assert words.replace(f'{arguments[0]} "', f'HR_PROMETHEUS_{variable}="') in done.stderr


def test_a_file_of_another_system(tmp_path):
    """A byte order mark and carriage returns change nothing."""
    (tmp_path / "hr-prometheus.toml").write_bytes(
        b"\xef\xbb\xbf# a comment\r\nexclude = [\r\n  '/a',\r\n]\r\nprot = 1\r\n"
    )
    done = hr_prometheus("rules", cwd=tmp_path)
    assert is_one_sentence(done)
    assert '"prot" on line 5 of hr-prometheus.toml' in done.stderr


def test_a_password_in_a_value_that_is_wrong(tmp_path):
    """It is not repeated."""
    (tmp_path / "hr-prometheus.toml").write_text("url = ['https://me:secret@host']")
    done = hr_prometheus("rules", cwd=tmp_path)
    assert is_one_sentence(done)
    assert done.stderr.startswith('Error: url ["https://***@host"] on line 1 of hr-prometheus.toml: expected a string')


def test_a_file_that_cannot_be_read(tmp_path):
    """It is said, rather than passed over."""
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    done = hr_prometheus("rules", "--config", "loop.toml", cwd=tmp_path)
    assert is_one_sentence(done)
    assert '--config "loop.toml" cannot be read: Too many levels of symbolic links.' in done.stderr


def test_a_link_to_nothing(tmp_path):
    """A file of ours that is one is no file that is not there: in the current directory, above it, or as it is named."""
    (tmp_path / "below").mkdir()
    (tmp_path / "hr-prometheus.toml").symlink_to("gone.toml")
    for directory, path in ((tmp_path, "hr-prometheus.toml"), (tmp_path / "below", "../hr-prometheus.toml")):
        for command in (["rules"], ["config"], ["config", "--check"]):
            done = hr_prometheus(*command, cwd=directory)
            assert is_one_sentence(done)
            assert done.stderr.startswith(f'Error: "{path}" cannot be read: No such file or directory. Correct it, or ')
            assert hr_prometheus(*command, "--no-config", cwd=directory).returncode == 0
            done = hr_prometheus(*command, "--config", path, cwd=directory)
            assert done.stderr == f'Error: --config "{path}" cannot be read: No such file or directory. Correct it.\n'


def test_a_link_to_nothing_in_a_project_of_others(tmp_path):
    """A pyproject.toml may be anybody's."""
    (tmp_path / "pyproject.toml").symlink_to("gone.toml")
    assert hr_prometheus("config", "--check", cwd=tmp_path).stdout == "No errors.\n"


@pytest.mark.parametrize(
    "target",
    [
        "",
        "none:app",
        "served:none",
        "none.py:app",
        "served.py:none",
        "below/served.py:app",
        "é:app",
        "served:x()",
        "served:Hidden",
    ],
)
@pytest.mark.parametrize("workers", [(), ("--workers", "1")], ids=str)
def test_a_target_that_is_wrong(tmp_path, target, workers):
    """The sentence names its line once: where it quotes the target, or at its end if it quotes a part."""
    shutil.copy(APPS / "served.py", tmp_path)
    (tmp_path / "hr-prometheus.toml").write_text(f"\ntarget = '{target}'\nport = 0\n")
    done = hr_prometheus("run", *workers, cwd=tmp_path)
    is_at_end = not is_one_sentence(done)
    assert f'target "{target}" on line 2 of hr-prometheus.toml' in done.stderr or is_at_end
    assert done.stderr.endswith(" (target on line 2 of hr-prometheus.toml)\n") == is_at_end
    assert done.stderr.count("on line") == 1


def test_an_address_that_is_wrong(tmp_path):
    """It names its own lines, and not those of another one that has the same number."""
    (tmp_path / "hr-prometheus.toml").write_text(
        "target = 'a:b'\nport = 0\nmetrics-host = '192.0.2.1'\nmetrics-port = 0\nhost = '127.0.0.1'\n"
    )
    done = hr_prometheus("run", cwd=tmp_path)
    assert done.returncode == 1
    assert "192.0.2.1" in done.stderr
    places = "metrics-host on line 3 of hr-prometheus.toml", "metrics-port on line 4 of hr-prometheus.toml"
    assert sorted(re.findall(r"[\w-]+ on line \d of hr-prometheus\.toml", done.stderr)) == list(places)


def test_a_number_that_its_command_refuses(tmp_path):
    """It is quoted with its line."""
    (tmp_path / "hr-prometheus.toml").write_text("[rules]\nlatency = {report = 0}")
    done = hr_prometheus("rules", cwd=tmp_path)
    assert is_one_sentence(done)
    assert 'latency "report=0" on line 2 of hr-prometheus.toml is not understood. Expected seconds' in done.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["-V"], ["run", "--help"], ["rules", "-h"], ["run", "x", "-h"]]
)
@pytest.mark.parametrize("content", ["hr-prometheus = [", "[tool.hr-prometheus]\nprot = 1\n"])
def test_help_needs_no_file(tmp_path, arguments, content):
    """Whatever is wrong with that of a project, help and version are shown."""
    (tmp_path / "pyproject.toml").write_text(content)
    done = hr_prometheus(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize(
    "content", ["", "[tool", "\xff\0", "[tool.black]\nline-length = 1\n", "[project]\nname = 'hr-prometheus'\n"]
)
def test_a_project_of_others(tmp_path, content):
    """A pyproject.toml that does not speak of us is passed over, whatever is wrong with it."""
    (tmp_path / "hr-prometheus.toml").write_text("job = 'above'\n")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "pyproject.toml").write_text(content, encoding="latin-1")
    done = hr_prometheus("config", "scrape-config", cwd=tmp_path / "below")
    assert re.search(r"\njob +above +\.\./hr-prometheus\.toml, line 1\n", done.stdout)
    assert done.stderr == ""


def settings(cwd, *arguments, **changes):
    """Return the rows of ``hr-prometheus config`` by their names."""
    done = hr_prometheus("config", "--format", "json", *arguments, cwd=cwd, **changes)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)["settings"]}


def test_the_nearest_file_is_read(tmp_path):
    """Of the current directory or above it; in one directory hr-prometheus.toml, or what an option or variable names."""
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert settings(deep, "rules")["job"]["from"] == "default"
    for directory, name in (
        (tmp_path, "pyproject.toml"),
        (tmp_path / "a", "hr-prometheus.toml"),
        (deep, "pyproject.toml"),
        (deep, "hr-prometheus.toml"),
    ):
        table = "[tool.hr-prometheus]\n" if name == "pyproject.toml" else "\n"
        (directory / name).write_text(f"{table}job = '{directory.name}-{name}'\n")
        row = settings(deep, "rules")["job"]
        assert row["value"] == f"{directory.name}-{name}"
        assert (row["file"], row["line"]) == (os.path.relpath(directory / name, deep), 2)
    typed = settings(deep, "rules", "--config", "../../pyproject.toml", HR_PROMETHEUS_CONFIG="../hr-prometheus.toml")
    assert typed["job"]["file"] == typed["config"]["value"] == "../../pyproject.toml"
    assert (
        settings(deep, "rules", HR_PROMETHEUS_CONFIG="../hr-prometheus.toml")["job"]["file"] == "../hr-prometheus.toml"
    )
    for arguments, changes in ((["--no-config"], {}), ([], {"HR_PROMETHEUS_NO_CONFIG": "1"})):
        assert settings(deep, "rules", *arguments, HR_PROMETHEUS_CONFIG="none", **changes)["job"]["from"] == "default"
    assert (
        settings(deep, "rules", "--config", "pyproject.toml", HR_PROMETHEUS_NO_CONFIG="1")["job"]["file"]
        == "pyproject.toml"
    )


def test_a_directory_that_everyone_may_write_to(tmp_path):
    """What anyone may have put there is only read in the current directory itself."""
    (tmp_path / "open" / "below").mkdir(parents=True)
    for directory in (tmp_path, tmp_path / "open"):
        (directory / "hr-prometheus.toml").write_text(f"job = '{directory.name}'")
    (tmp_path / "open").chmod(0o1777)
    assert settings(tmp_path / "open" / "below", "rules")["job"]["value"] == tmp_path.name
    assert settings(tmp_path / "open", "rules")["job"]["value"] == "open"


def test_what_wins(tmp_path):
    """The command line, then the environment, then a file of variables, then the configuration file, then the default."""
    assert settings(tmp_path, "run")["port"] | {"commands": 0} == {
        "name": "port",
        "commands": 0,
        "value": None,
        "from": "default",
        "default": "8080",
    }
    (tmp_path / "hr-prometheus.toml").write_text(
        "env-file = '.env'\nport = 1\nexclude = ['/file', '/b']\nloop-metrics = false\n"
    )
    (tmp_path / ".env").write_text("")
    row = settings(tmp_path, "run")["port"]
    assert (row["value"], row["from"], row["file"], row["line"]) == (1, "file", "hr-prometheus.toml", 2)
    (tmp_path / ".env").write_text("\nexport HR_PROMETHEUS_PORT=2\n")
    row = settings(tmp_path, "run")["port"]
    assert (row["value"], row["from"], row["variable"], row["file"], row["line"]) == (
        2,
        "variable",
        "HR_PROMETHEUS_PORT",
        ".env",
        2,
    )
    variables = {"HR_PROMETHEUS_PORT": "3", "HR_PROMETHEUS_EXCLUDE": "/c /d", "HR_PROMETHEUS_LOOP_METRICS": "1"}
    rows = settings(tmp_path, "run", **variables)
    assert (rows["port"]["value"], rows["port"]["variable"]) == (3, "HR_PROMETHEUS_PORT")
    assert "file" not in rows["port"]
    assert (rows["exclude"]["value"], rows["loop-metrics"]["value"]) == (["/c", "/d"], True)
    typed = ["--port", "4", "--exclude", "/e", "--no-loop-metrics"]
    rows = settings(tmp_path, "run", *typed, **variables)
    assert [(rows[name]["value"], rows[name]["from"]) for name in ("port", "exclude", "loop-metrics")] == [
        (4, "command line"), (["/e"], "command line"), (False, "command line"),
    ]  # fmt: skip


def test_files_of_variables(tmp_path):
    """They may name the configuration file; one that is typed wins over the one that it names."""
    (tmp_path / "a.env").write_text("HR_PROMETHEUS_CONFIG=other.toml\nHR_PROMETHEUS_JOB=a\n")
    (tmp_path / "b.env").write_text("HR_PROMETHEUS_JOB=b\nHR_PROMETHEUS_OUTPUT=b.yml\n")
    (tmp_path / "other.toml").write_text("env-file = 'b.env'\noutput = 'toml.yml'\n")
    rows = settings(tmp_path, "rules", "--env-file", "a.env")
    assert (rows["job"]["value"], rows["output"]["value"], rows["config"]["value"]) == ("a", "toml.yml", "other.toml")
    rows = settings(tmp_path, "rules", "--config", "other.toml")
    assert (rows["job"]["value"], rows["output"]["value"]) == ("b", "b.yml")


def test_a_variable_of_a_file_that_is_no_setting(tmp_path):
    """It is a warning with its line; a wrong value of one that is a setting is an error with its line."""
    (tmp_path / ".env").write_text("HR_PROMETHEUS_PROT=1\nHR_PROMETHEUS_WORKERS=many\n")
    done = hr_prometheus("run", "a:b", "--env-file", ".env", cwd=tmp_path)
    assert done.returncode == USAGE
    assert done.stderr == (
        'Warning: HR_PROMETHEUS_PROT on line 1 of .env is not a setting of hr-prometheus. Did you mean "HR_PROMETHEUS_PORT"?\n'
        'Error: HR_PROMETHEUS_WORKERS="many" on line 2 of .env is not understood. Expected a number from 1 to 256, or auto for '
        "as many as there are processors.\n"
    )


def test_an_address_that_the_system_refuses(tmp_path):
    """The error is followed by the setting and its line."""
    (tmp_path / "hr-prometheus.toml").write_text("\nhost = 'no.such.name.invalid'\n")
    done = hr_prometheus("run", f"{APPS}/served.py:app", "--port", "0", cwd=tmp_path)
    assert done.stderr.endswith(" (host on line 2 of hr-prometheus.toml)\n"), done.stderr


SERVICE = """
import os

from aiohttp import web


async def show(request):
    return web.Response(text=os.environ.get("SECRET", "none"))


async def add_route(app):
    app.router.add_get("/late/{x}", show, name="late")


def create_app(arguments=()):
    app = web.Application()
    app.router.add_get("/cells/{cell_id}/{side}", show, name="get_cell")
    app.router.add_get("/health", show, name="health")
    if "--started" in arguments:
        app.on_startup.append(add_route)
    return app
"""
SCRIPT = SERVICE + "\n\nif __name__ == '__main__':\n    web.run_app(create_app(), port=1)\n"
PROJECT = """
[tool.hr-prometheus]
target = "shop.app:create_app"
env-file = ".env"
fixed-route = {get_cell = ["cell_id"]}
allow-values.get_cell.side = ["north"]
exclude = ["/health*", "/nothing"]

[tool.hr-prometheus.run]
port = 0
access-log = true
"""


@pytest.fixture
def project(tmp_path):
    """A directory with a service, a script, their settings and their variables; a directory below it."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "app.py").write_text(SERVICE)
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / ".env").write_text("SECRET='of the file' # and a comment\n")
    return tmp_path


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("arguments", [[], ["--workers", "2"], ["script.py"]], ids=str)
def test_a_service_whose_settings_are_in_a_file(serve, project, arguments, below):
    """The command "hr-prometheus run" alone serves it, with workers and as a script, too, from below its directory as well."""
    if below and "script.py" in arguments:
        arguments = ["../script.py"]
    service = serve(*arguments, cwd=project / "shop" if below else project)
    with urllib.request.urlopen(f"{service.url}/cells/7/up") as response:
        assert response.read() == b"of the file"
    with urllib.request.urlopen(service.metrics_url) as response:
        assert b'request_count_total{method="GET",path="/cells/{cell_id}/other",status="200"} 1.0' in response.read()
    code, _, err = service.stop()
    assert code == 0
    assert '"GET /cells/7/up HTTP/1.1" 200' in err
    file = "../pyproject.toml" if below else "pyproject.toml"
    assert f'exclude "/nothing" on line 7 of {file} matches no path label, so it leaves nothing out.' in err


@pytest.mark.parametrize("arguments", [[], ["--workers", "2"], ["script.py"]], ids=str)
def test_a_route_of_the_file_that_does_not_exist(project, arguments):
    """The error is about the line that names it, in one process, from a worker, and of a script."""
    text = (project / "pyproject.toml").read_text().replace("get_cell = [", "get_cel = [")
    (project / "pyproject.toml").write_text(text)
    done = hr_prometheus("run", *arguments, cwd=project)
    assert is_one_sentence(done)
    assert done.stderr == (
        'Error: fixed-route "get_cel=cell_id" on line 5 of pyproject.toml: the application has no route named "get_cel". '
        'Did you mean "get_cell"? Named routes: get_cell, health.\n'
    )


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=str)
def test_a_route_of_the_file_that_start_up_may_add(serve, project, workers):
    """The warning is about the line, once."""
    with (project / "pyproject.toml").open("a") as file:
        file.write("arguments = ['--started']\nfixed-route = {get_cell = 'cell_id', lat = 'x'}\n")
    err = serve(*workers, cwd=project).stop()[2]
    assert (
        err.count('fixed-route "lat=x" on line 13 of pyproject.toml: the application has no route named "lat". ') == 1
    )


def test_a_contradiction_within_the_file(project):
    """Each of the two settings is named with its line."""
    with (project / "pyproject.toml").open("a") as file:
        file.write("[tool.hr-prometheus.routes]\nfixed-route = {get_cell = 'side'}\n")
    done = hr_prometheus("routes", cwd=project)
    assert is_one_sentence(done)
    assert done.stderr.startswith('Error: allow-values "get_cell.side=north" on line 6 of pyproject.toml')
    assert done.stderr.endswith(" or from fixed-route on line 13 of pyproject.toml.\n"), done.stderr


def test_an_application_that_instruments_itself(serve, project):
    """The settings that it ignores are named with their lines."""
    (project / "hr-prometheus.toml").write_text(
        f"app-dir = '{APPS}'\ntarget = 'instrumented:by_hand'\nport = 0\npath-budget = 5\n"
    )
    err = serve(cwd=project).stop()[2]
    assert "path-budget on line 4 of hr-prometheus.toml" in err
