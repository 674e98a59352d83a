from __future__ import annotations

import click
import pytest

from hr_prometheus.commands.group import cli
from hr_prometheus.metrics import CLIENT_SESSIONS
from hr_prometheus.store.bounds import MODES


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        (["a:b"], None),
        (["--native-histograms", "a:b"], "only"),
        (["a:b", "--native-histograms"], "only"),
        (["--native-histograms", "--port", "0", "a:b"], "only"),
        (["--native-histograms=both", "a:b"], "both"),
        (["--native-histograms", "both", "a:b"], "both"),
        (["a:b", "--", "--native-histograms"], None),
    ],
)
def test_an_option_may_be_typed_without_its_value(arguments, mode):
    """It takes no other argument for one, and those of the application are left alone."""
    ctx = cli.commands["run"].make_context("run", arguments, parent=click.Context(cli))
    assert (ctx.params["target"], ctx.params["native_histograms"]) == ("a:b", mode)


@pytest.mark.parametrize("option", ["--native-histograms", "--client-metrics"])
@pytest.mark.parametrize("text", ["true", "1", "false", "0", *MODES, *CLIENT_SESSIONS])
def test_it_may_be_true_or_false_in_a_variable(monkeypatch, option, text):
    """As a flag may; false is as if it were not set."""
    name, choices = ("native_histograms", MODES) if "native" in option else ("client_metrics", CLIENT_SESSIONS)
    monkeypatch.setenv(f"HR_PROMETHEUS_{name.upper()}", text)
    values = {"true": choices[0], "1": choices[0], "false": None, "0": None} | {each: each for each in choices}
    if text in values:
        assert cli.commands["run"].make_context("run", ["a:b"], parent=click.Context(cli)).params[name] == values[text]
    else:
        with pytest.raises(click.BadParameter, match="is not one of '.*', '.*'"):
            cli.commands["run"].make_context("run", ["a:b"], parent=click.Context(cli))


@pytest.mark.parametrize("option", ["--unix-path", "--host", "--file-sd"])
def test_an_empty_text_is_refused(option):
    """As a shell gives that lacks a variable: else the application would be served elsewhere without a word."""
    with pytest.raises(click.BadParameter, match="expected a text that is not empty"):
        cli.commands["run"].make_context("run", [option, "", "a:b"], parent=click.Context(cli))
