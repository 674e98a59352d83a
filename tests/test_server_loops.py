"""The choice of the event loop."""

from __future__ import annotations

import asyncio
import sys

import pytest

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.server.loops import loop_factory


@pytest.mark.parametrize(("name", "module"), [("asyncio", "asyncio"), ("uvloop", "uvloop"), ("auto", "uvloop")])
def test_the_loop_of_a_name(name, module):
    """With uvloop installed, auto is uvloop."""
    loop = loop_factory(name)()
    try:
        assert type(loop).__module__.partition(".")[0] == module
    finally:
        loop.close()


def test_without_uvloop(monkeypatch):
    """Auto is asyncio then, and uvloop is an error."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    monkeypatch.setattr("hr_prometheus.server.loops.find_spec", lambda _name: None)
    assert loop_factory("auto") is asyncio.new_event_loop
    with pytest.raises(ConfigurationError, match="uvloop is not installed"):
        loop_factory("uvloop")
