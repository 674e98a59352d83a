from __future__ import annotations

import pytest
from prometheus_client import Gauge

from hr_prometheus.multiprocess.identity import FILE, identifier, shown_as, with_worker


def test_every_file_of_prometheus_client_is_known():
    """Those of all its kinds and modes, and no others; an identifier may have any characters."""
    kinds = ["counter", "summary", "histogram", *(f"gauge_{mode}" for mode in Gauge._MULTIPROC_MODES)]
    for kind in kinds:
        parts = FILE.fullmatch(f"{kind}_my_own.name.db")
        assert (parts["kind"], parts["mode"] or "", parts["identifier"]) == (
            kind,
            kind.removeprefix("gauge_") if kind.startswith("gauge") else "",
            "my_own.name",
        )
    for name in ("gauge_w0.db", "gauge_average_w0.db", "counter_w0.db.new", "counter.db", "info_w0.db"):
        assert not FILE.fullmatch(name)


@pytest.mark.parametrize(
    ("named", "shown"), [(identifier(0), "0"), (identifier(12), "12"), ("w0-4711", "0-4711"), ("4711", "pid-4711")]
)
def test_a_process_is_shown_by_its_slot(named, shown):
    """Or by its pid, if it is no worker's: a pid is never taken for a slot."""
    assert shown_as(named) == shown


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, {"worker": "3"}),
        ({"a": "b"}, {"a": "b", "worker": "3"}),
        ({"worker": "me"}, {"exported_worker": "me", "worker": "3"}),
        (
            {"worker": "me", "exported_worker": "you"},
            {"exported_exported_worker": "me", "exported_worker": "you", "worker": "3"},
        ),
    ],
)
def test_a_label_that_is_there_makes_way_for_the_worker(labels, expected):
    """As with Prometheus's own labels of a target."""
    assert with_worker(labels, "3") == expected
