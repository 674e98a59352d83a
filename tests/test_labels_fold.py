"""The budget of path labels, in one process and in several that share it."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hr_prometheus.labels import fold

if TYPE_CHECKING:
    from collections.abc import Iterator

TEMPLATE = "/users/{user}"


def budget(
    limit: int, shared: fold.SharedLabels | None, *, host: str = "", template: str = TEMPLATE
) -> fold.PathBudget:
    """Return the budget that a process has which shares its labels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold, "_shared", shared)
        return fold.PathBudget(limit, host, template, lambda _template: lambda: None, name="*", parameter="user")


@contextmanager
def shared_file() -> Iterator[int]:
    """Open a file that processes share."""
    with tempfile.TemporaryFile() as file:
        yield file.fileno()


@given(st.integers(0, 4), st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abcdefg"), st.booleans())))
def test_processes_have_one_budget(limit, requests):
    """Whichever process is asked for which label, and whichever is replaced: the first labels, up to the limit, have a place."""
    with shared_file() as file:
        budgets = [budget(limit, fold.SharedLabels(file)) for _ in range(3)]
        expected: list[str] = []
        for process, label, is_replaced in requests:
            if label not in expected and len(expected) < limit:
                expected.append(label)
            if is_replaced:
                budgets[process] = budget(limit, fold.SharedLabels(file))
            assert (label in budgets[process].labels or budgets[process].admit(label)) == (label in expected)
            assert budgets[process].labels <= set(expected)


def test_each_route_and_host_has_a_budget_of_its_own():
    """Labels of one take no place of another."""
    with shared_file() as file:
        shared = fold.SharedLabels(file)
        others = {"host": "a.example"}, {"template": "/{user}"}, {}
        assert [budget(1, shared, **other).admit("/users/1") for other in others] == [True] * 3
        assert not budget(1, shared).admit("/users/2")


@pytest.mark.parametrize("rest", [b"[1, ", b'\n{"a": 1}\n', b"\n[1, 2]\n", b"\n\xff\n"])
def test_a_line_that_was_cut_short_is_passed_over(rest):
    """Its writer was killed, or the disk was full; the next line counts."""
    with shared_file() as file:
        assert budget(2, fold.SharedLabels(file)).admit("/users/1")
        os.write(file, rest)
        assert budget(2, fold.SharedLabels(file)).admit("/users/2")
        third = budget(2, fold.SharedLabels(file))
        assert not third.admit("/users/3")
        assert third.labels == {"/users/1", "/users/2"}


def refuses(labels: fold.PathBudget, caplog: pytest.LogCaptureFixture) -> bool:
    """Whether a request is folded, and nothing is said of a budget that is not spent."""
    admitted = labels.admit("/users/1")
    labels.fold()
    return not (admitted or labels.is_spent or caplog.records)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is full")
def test_without_room_a_label_has_no_place(caplog):
    """The disk is full, where a system has no files in memory."""
    with open("/dev/full", "r+b", buffering=0) as file:
        assert refuses(budget(2, fold.SharedLabels(file.fileno())), caplog)


def test_a_file_that_the_application_has_closed(tmp_path, caplog):
    """As with os.closerange: a label has no place, and the file that has the descriptor by then is left alone."""
    with tempfile.TemporaryFile() as file:
        descriptor, labels = file.fileno(), budget(2, fold.SharedLabels(file.fileno()))
    assert refuses(labels, caplog)
    other = tmp_path / "other"
    opened = os.open(other, os.O_RDWR | os.O_CREAT)
    try:
        os.dup2(opened, descriptor)
        assert refuses(labels, caplog)
    finally:
        os.close(descriptor)
        if opened != descriptor:
            os.close(opened)
    assert not other.read_bytes()
