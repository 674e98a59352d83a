from __future__ import annotations

import click
import pytest

from hr_prometheus.commands.group import cli


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
