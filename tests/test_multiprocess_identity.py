from __future__ import annotations

import pytest
from prometheus_client import Gauge

from hr_prometheus.multiprocess.identity import FILE, add_worker_label, identifier, worker_label


def test_the_file_names_of_prometheus_client_match():
    """Those of all kinds and modes match, and no others; an identifier may have any characters."""
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
    ("name", "label"), [(identifier(0), "0"), (identifier(12), "12"), ("w0-4711", "0-4711"), ("4711", "pid-4711")]
)
def test_a_process_is_labelled_with_its_slot(name, label):
    """A process that is not a worker is labelled with its pid, which is never taken for a slot."""
    assert worker_label(name) == label


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
def test_a_label_worker_of_the_application_is_renamed(labels, expected):
    """Prometheus does the same for labels of a target that collide with its own."""
    assert add_worker_label(labels, "3") == expected
