"""Tests of rules for promtool: a choice of them, and the rules that they need."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path


def load(file: Path) -> dict[str, Any]:
    """Read YAML, with the parser that is ten times faster."""
    return yaml.load(file.read_text(), Loader=yaml.CSafeLoader)


def keep(file: Path, pattern: str) -> list[dict[str, Any]]:
    """Leave only the tests whose names match, and return them."""
    document = load(file)
    document["tests"] = [test for test in document["tests"] if re.search(pattern, test["name"])]
    file.write_text(json.dumps(document))  # YAML, too
    return document["tests"]


def without_routes(rule_file: Path, file: Path) -> Path:
    """Write the tests anew, for the rules that alerts are made of. The others take two fifths of a simulation."""
    rules, tests = load(rule_file), load(file)
    (routes,) = [group for group in rules["groups"] if group["name"].endswith(": routes")]
    rules["groups"].remove(routes)
    tests["group_eval_order"].remove(routes["name"])
    tests["rule_files"] = ["few-rules.yml"]
    file.with_name("few-rules.yml").write_text(json.dumps(rules))
    written = file.with_name("few-rules-tests.yml")
    written.write_text(json.dumps(tests))
    return written


def apart(rule_file: Path, file: Path) -> tuple[Path, Path]:
    """Move the tests that simulate days to a file of their own, :func:`without_routes`; return both."""
    days = without_routes(rule_file, file)
    assert keep(days, " minutes$")
    assert keep(file, "^(?!.* minutes$)")
    return days, file
