from __future__ import annotations

from hr_prometheus import errors


def test_a_near_miss_is_suggested():
    """The nearest name is offered, and nothing when nothing is near."""
    assert errors.did_you_mean("creat_app", ["create_app", "other"]) == ' Did you mean "create_app"?'
    assert errors.did_you_mean("xyz", ["create_app"]) == ""


def test_the_case_of_a_name():
    """It counts only between names that differ in nothing else."""
    assert errors.did_you_mean("Port", ["sort", "port"]) == ' Did you mean "port"?'
    assert errors.did_you_mean("FIXED_ROUTE", ["fixed-route"]) == ' Did you mean "fixed-route"?'
    assert errors.did_you_mean("Apps", ["app", "App"]) == ' Did you mean "App"?'
    assert errors.did_you_mean("apps", ["app", "App"]) == ' Did you mean "app"?'


def test_the_tree_in_the_docstring_is_the_real_one():
    """Each exception is drawn where it stands."""
    drawn = errors.__doc__.split("::")[1]
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            (line,) = [line for line in drawn.splitlines() if f" {name} " in f"{line} "]
            depth = len(kind.__mro__) - len(errors.HrPrometheusError.__mro__)
            if kind.__mro__[1] is errors.HrPrometheusError:
                assert line.strip().startswith(("├", "└")), name
            elif kind is not errors.HrPrometheusError:
                assert line.strip().startswith("│"), (name, depth)
