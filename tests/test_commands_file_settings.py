from __future__ import annotations

import json
import os
from unittest import mock

import click
import hypothesis
import pytest
from conftest import CHARACTERS
from hypothesis import example, given
from hypothesis import strategies as st

from hr_prometheus.commands import file_settings, sources
from hr_prometheus.commands.config_file import ConfigFile
from hr_prometheus.commands.group import cli
from hr_prometheus.commands.parameters import Parameter, origins_of, settable_parameters
from hr_prometheus.commands.sources import commands_of
from hr_prometheus.commands.types import FilePath
from hr_prometheus.errors import ConfigurationError

#: Texts of those parameters that not any text will do for.
SAMPLES = {
    "fixed-route": "cell=id,side",
    "allow-values": "api.cell.side=north,south",
    "label": "team=const:shop",
    "buckets": "0.1,0.5",
    "latency": "report=0.5",
    "workers": 3,
    "forwarded-allow-ips": "10.0.0.0/8,unix",
    "access-log-format": "%a %s",
    "unix-mode": "660",
    "objective": "cell=99.5",
    "trace-url": "https://traces.example/{trace_id}",
}
SETTINGS = [
    (name, key) for name, command in commands_of(click.Context(cli)).items() for key in settable_parameters(command)
]


def context(name, *arguments, target=("a:b",)):
    """Return the context of a command with its arguments, as it is before the command runs."""
    typed = (
        target if any(each.name in {"target", "url"} and each.required for each in cli.commands[name].params) else ()
    )
    return cli.commands[name].make_context(name, [*typed, *arguments], parent=click.Context(cli))


def sample(parameter) -> tuple[object, str]:
    """Return a value as a file has it, and its text on the command line."""
    if isinstance(parameter.type, click.types.BoolParamType):
        value = not parameter.secondary_opts
    elif isinstance(parameter.type, click.IntRange | click.FloatRange):
        value = parameter.type.example
    elif isinstance(parameter.type, click.Choice):
        value = parameter.type.choices[-1]
    else:
        value = SAMPLES.get(parameter.key, "x")
    return value, json.dumps(value) if isinstance(value, bool) else str(value)


def typed(parameter, text) -> list[str]:
    """Return the words that give a parameter its value on the command line."""
    if isinstance(parameter, click.Argument):
        return [text]
    if not isinstance(parameter.type, click.types.BoolParamType):
        return [parameter.opts[-1], text]
    return [parameter.opts[-1] if text == "true" else parameter.secondary_opts[-1]]


@pytest.mark.parametrize(("name", "key"), SETTINGS, ids=str)
def test_every_parameter_can_be_set_by_a_file(tmp_path, monkeypatch, name, key):
    """For all commands or for one; it has the value that it has when it is typed, and its line is known."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").touch()  # the paths are those of a file that exists
    parameters = settable_parameters(cli.commands[name])
    value, text = sample(parameters[key])
    subject = next((each for each in ("target", "url") if each in parameters and each != key), None)
    expected = context(name, *(["a:b"] if subject else []), *typed(parameters[key], text), target=())
    for table in ("", f"[{name}]"):
        (tmp_path / "hr-prometheus.toml").write_text(
            (f"{subject} = 'a:b'" if subject else "")
            + f"\n{table}\n{key} = {json.dumps([value] if parameters[key].is_list else value)}\n"
        )
        ctx = context(name, target=())
        assert ctx.params == expected.params
        origin = origins_of(ctx)[parameters[key].setting]
        assert (origin.file, origin.lines, origin.values) == ("hr-prometheus.toml", (3,), (text,))


def test_options_that_choose_the_file():
    """They are those that a file cannot have, and what it says of them is how they are typed."""
    keys = {each.key for each in cli.commands["run"].params if isinstance(each, Parameter) and not each.is_settable}
    assert keys == {*file_settings._CHOICES}


def test_there_are_parameters_to_test():
    """Arguments, options of all commands, and those that files are named by; but not the configuration file itself."""
    keys = {key for _, key in SETTINGS}
    assert {"target", "arguments", "url", "port", "fixed-route", "objective", "env-file", "format"} <= keys
    assert set(commands_of(click.Context(cli))) == {*cli.commands} - {"config", "check-web-config"}
    assert not {"config", "no-config"} & keys


@pytest.mark.parametrize(
    ("written", "option", "texts"),
    [
        ("fixed-route = {cell = ['id', 'side'], other = '*'}", "--fixed-route", ["cell=id,side", "other=*"]),
        ("[fixed-route]\n'*' = '*'\napi.cell = 'id'", "--fixed-route", ["*=*", "api.cell=id"]),
        ("[allow-values.cell]\nside = ['north', 'south']", "--allow-values", ["cell.side=north,south"]),
        ("allow-values.'api.cell'.side = 'north'", "--allow-values", ["api.cell.side=north"]),
        ("label = {team = 'const:a,b', client = 'header:X=web,ios'}", "--label", ["team=const:a,b", "client=header:X=web,ios"]),
        ("buckets = [0.1, 0.5, 1]", "--buckets", ["0.1,0.5,1"]),
        ("buckets = 1", "--buckets", ["1"]),
        ("buckets = ['0.1,0.5', 'cell=1,2']", "--buckets", ["0.1,0.5", "cell=1,2"]),
        ("buckets = {'*' = 1, cell = [0.5, 2]}", "--buckets", ["*=1", "cell=0.5,2"]),
        ("names = ['http']", "--names", ["http"]),
        ("workers = 2", "--workers", ["2"]),
        ("workers = 'auto'", "--workers", ["auto"]),
        ("exclude = []", "--exclude", []),
        ("slow = 1", "--slow", ["1"]),
        ("slow = 2.5", "--slow", ["2.5"]),
        ("port = 0x1F90", "--port", ["8080"]),
        ("native-histograms = true", "--native-histograms", ["only"]),
        ("native-histograms = 'both'", "--native-histograms", ["both"]),
        ("native-histograms = false", "--native-histograms", []),
        ("native-histograms = true\n[run]\nnative-histograms = false", "--native-histograms", []),
        ("client-metrics = true", "--client-metrics", ["kept"]),
    ],
)  # fmt: skip
def test_forms_that_a_file_has_beside_texts(tmp_path, monkeypatch, written, option, texts):
    """Tables, arrays and numbers are short for the texts of the command line."""
    monkeypatch.chdir(tmp_path)
    expected = context("run", *(word for text in texts for word in (option, text)))
    (tmp_path / "hr-prometheus.toml").write_text(written)
    assert context("run").params | {"origins": None} == expected.params | {"origins": None}


@pytest.mark.parametrize(
    "written", ["objective = [99.5, 'cell=98']", "objective = {cell = 98}", "[rules]\nobjective = 99.9"]
)
def test_objectives_are_numbers_or_texts(tmp_path, monkeypatch, written):
    """Of the application a number, of a route one in a table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hr-prometheus.toml").write_text(written)
    budgets = {name: str(budget) for name, budget in context("rules").params["objectives"].items()}
    assert budgets.items() <= {("*", "0.005"), ("*", "0.001"), ("cell", "0.02")}


def test_a_table_of_a_command_wins(tmp_path, monkeypatch):
    """What is for all commands is for those that have it, unless their own table says otherwise."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hr-prometheus.toml").write_text(
        "job = 'shop'\nport = 1\noutput = 'x'\n[rules]\noutput = 'rules.yml'\n[scrape-config]\nport = 2\n"
    )
    assert (context("run").params["port"], context("scrape-config").params["port"]) == (1, 2)
    assert {context(name).params["job"] for name in ("rules", "dashboard", "scrape-config")} == {"shop"}
    assert [context(name).params["output"] for name in ("rules", "dashboard")] == ["rules.yml", "x"]


PATHS = [
    (name, key) for name, key in SETTINGS
    if isinstance(settable_parameters(cli.commands[name])[key].type, FilePath)
]  # fmt: skip


@pytest.mark.parametrize(("name", "key"), PATHS, ids=str)
def test_paths_are_relative_to_the_file(tmp_path, monkeypatch, name, key):
    """Wherever the command is started below it; absolute ones are what they are."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "x").touch()
    monkeypatch.chdir(tmp_path / "a" / "b")
    parameter = settable_parameters(cli.commands[name])[key]
    for path, expected in (("x", "../../x"), (f"{tmp_path}/x", f"{tmp_path}/x")):
        value = [path] if parameter.is_list else path
        (tmp_path / "hr-prometheus.toml").write_text(f"{key} = {json.dumps(value)}\n")
        assert origins_of(context(name))[parameter.setting].values == (expected,)


@pytest.mark.parametrize("key", ["reload-include", "reload-exclude"])
def test_patterns_of_paths_are_relative_to_the_file(tmp_path, monkeypatch, key):
    """Those of names stay as they are; the name of the file's directory is no pattern."""
    (tmp_path / "[a]" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "[a]" / "b")
    (tmp_path / "[a]" / "hr-prometheus.toml").write_text(f"{key} = ['gen/*.py', '/srv/*.py', '*.html']\n")
    assert origins_of(context("run"))[key.replace("-", "_")].values == ("../gen/*.py", "/srv/*.py", "*.html")
    monkeypatch.chdir(tmp_path)
    values = origins_of(context("run", "--config", "[a]/hr-prometheus.toml"))[key.replace("-", "_")].values
    assert values == ("[[]a]/gen/*.py", "/srv/*.py", "*.html")


def test_paths_in_a_pipe_are_relative_to_the_current_directory():
    """As in --config <(generate), whose path is that of a descriptor."""
    reader, writer = os.pipe()
    os.write(writer, b"target = 'app.py'\npid-file = 'pid'\n")
    os.close(writer)
    origins = origins_of(context("run", "--config", f"/dev/fd/{reader}", target=()))
    os.close(reader)
    assert {name: origin.values for name, origin in origins.items() if origin.file} == {
        "target": ("app.py",),
        "pid_file": ("pid",),
    }


def test_every_file_or_directory_is_relative():
    """An option whose value is one has the type that makes it so."""
    for name, key in SETTINGS:
        parameter = settable_parameters(cli.commands[name])[key]
        if getattr(parameter, "metavar", None) in {"FILE", "DIRECTORY"} or key == "unix-path":
            assert (name, key) in PATHS


@pytest.mark.parametrize(
    ("target", "expected", "app_dir"),
    [
        ("shop.app:create_app", "shop.app:create_app", "../.."),
        ("app/main.py:create_app", "../../app/main.py:create_app", "../.."),
        ("main.py", "../../main.py", "../.."),
        ("/srv/main.py:app", "/srv/main.py:app", "../.."),
    ],
)
def test_a_target_is_relative_to_the_file(tmp_path, monkeypatch, target, expected, app_dir):
    """Its path is, and the directory that its modules are imported from, unless there is another one."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    file = tmp_path / "hr-prometheus.toml"
    file.write_text(f'target = "{target}"\n')
    params = context("run", target=()).params
    assert (params["target"], params["app_dir"]) == (expected, app_dir)
    assert context("run", "--app-dir", "x", target=()).params["app_dir"] == "x"
    file.write_text(f'target = "{target}"\napp-dir = "src"\n')
    assert context("run", target=()).params["app_dir"] == "../../src"


def test_another_target_has_its_own_arguments(tmp_path, monkeypatch):
    """Those in the file are for the file's target; what is typed behind -- takes their place."""
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    (tmp_path / "hr-prometheus.toml").write_text('target = "a:b"\narguments = ["--fast"]\n')

    def values(*arguments):
        params = context("run", *arguments, target=()).params
        return params["target"], params["arguments"], params["app_dir"]

    assert values() == ("a:b", ("--fast",), "..")
    assert values("c:d") == ("c:d", (), ".")
    assert values("c:d", "--", "--slow") == ("c:d", ("--slow",), ".")
    assert values("--", "--slow") == ("a:b", ("--slow",), "..")
    assert values("--port", "0", "--", "x", "y") == ("a:b", ("x", "y"), "..")
    assert values("--") == ("a:b", ("--fast",), "..")
    (tmp_path / "hr-prometheus.toml").write_text("")
    assert values("--", "c:d", "x") == ("c:d", ("x",), ".")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([10**400, -(10**400)]) | st.floats() | st.dates() | st.text(CHARACTERS, max_size=5)
    | st.sampled_from(["*", "a=b", "a.b=c", "team=const:shop", "9" * 400, "0.1,0.5", "auto", "\0", "a\nb"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(CHARACTERS, max_size=3) | st.sampled_from(["*", "a.b"]), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
KEYS = st.sampled_from([*{key for _, key in SETTINGS}, *cli.commands, "no-status"]) | st.text(CHARACTERS, max_size=5)


@hypothesis.settings(max_examples=300)
@given(
    table=st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES, max_size=3), max_size=3),
    name=st.sampled_from(["run", "rules", "top"]),
)
@example(table={"latency": {"\n": 0}}, name="run")
@example(table={"latency": {"a": {"\n": []}}}, name="rules")
def test_any_file_is_right_or_one_sentence(table, name):
    """Whatever is in it; no value makes a command fail otherwise."""
    table.pop("env-file", None)
    with mock.patch.object(sources, "find_config_file", return_value=ConfigFile("f.toml", table, {})):
        try:
            context(name)
        except ConfigurationError as error:
            assert "\n" not in str(error)
            assert str(error).endswith((".", "?"))


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--client-metrics", "a:b"], "kept"),
        (["a:b", "--client-metrics"], "kept"),
        (["--client-metrics", "all", "a:b"], "all"),
        (["--client-metrics=all", "a:b"], "all"),
        (["--client-metrics", "--port", "1", "a:b", "--", "--client-metrics"], "kept"),
        (["a:b", "--", "--client-metrics"], None),
    ],
)
def test_an_option_may_have_its_value_left_out(words, value):
    """It takes no other word for its value, and what is typed behind -- is the application's."""
    params = context("run", *words, target=()).params
    assert (params["target"], params["client_metrics"]) == ("a:b", value)
