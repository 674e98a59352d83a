"""The budget of path labels, in one process and in several that share it."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hr_prometheus.labels import fold

TEMPLATE = "/users/{user}"


def budget(
    limit: int, shared: fold.SharedLabels | None, *, host: str = "", template: str = TEMPLATE
) -> fold.PathBudget:
    """Return the budget that a process has which shares its labels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold, "_shared", shared)
        return fold.PathBudget(limit, host, template, lambda _template: lambda: None, name="*", parameter="user")


@given(st.integers(0, 4), st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abcdefg"), st.booleans())))
def test_processes_have_one_budget(tmp_path_factory, limit, requests):
    """Whichever process is asked for which label, and whichever is replaced: the first labels, up to the limit, have a place."""
    path = str(tmp_path_factory.mktemp("numbers") / "labels")
    budgets = [budget(limit, fold.SharedLabels(path)) for _ in range(3)]
    expected: list[str] = []
    for process, label, is_replaced in requests:
        if label not in expected and len(expected) < limit:
            expected.append(label)
        if is_replaced:
            budgets[process] = budget(limit, fold.SharedLabels(path))
        assert (label in budgets[process].labels or budgets[process].admit(label)) == (label in expected)
        assert budgets[process].labels <= set(expected)


def test_each_route_and_host_has_a_budget_of_its_own(tmp_path):
    """Labels of one take no place of another."""
    shared = fold.SharedLabels(str(tmp_path / "labels"))
    others = {"host": "a.example"}, {"template": "/{user}"}, {}
    assert [budget(1, shared, **other).admit("/users/1") for other in others] == [True] * 3
    assert not budget(1, shared).admit("/users/2")


@pytest.mark.parametrize("rest", [b"[1, ", b'\n{"a": 1}\n', b"\n[1, 2]\n", b"\n\xff\n"])
def test_a_line_that_was_cut_short_is_passed_over(tmp_path, rest):
    """Its writer was killed, or the disk was full; the next line counts."""
    path = tmp_path / "labels"
    assert budget(2, fold.SharedLabels(str(path))).admit("/users/1")
    with path.open("ab") as file:
        file.write(rest)
    assert budget(2, fold.SharedLabels(str(path))).admit("/users/2")
    third = budget(2, fold.SharedLabels(str(path)))
    assert not third.admit("/users/3")
    assert third.labels == {"/users/1", "/users/2"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is full")
@pytest.mark.parametrize("place", ["/dev/full", "/nowhere/labels"])
def test_without_room_a_label_has_no_place(place, caplog):
    """The request is folded, and nothing is said of a budget that is not spent."""
    without_room = budget(2, fold.SharedLabels(place))
    assert not without_room.admit("/users/1")
    without_room.fold()
    assert not without_room.is_spent
    assert not caplog.records
