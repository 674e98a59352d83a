"""The layout is a rule: a module imports from lower floors only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import hr_prometheus

PACKAGE = Path(hr_prometheus.__file__).parent
FLOORS = [
    {"catalog", "errors", "yaml_text"},
    {"addresses", "life", "loading", "resources", "series"},
    {"cell_files", "policies", "records", "rendering"},
    {"exposition", "labels"},
    {"config", "monitors", "scrapes"},
    {"lives", "view"},
    {"recorder"},
    {"access_log", "middleware", "routes"},
    {"queries"},
    {"objectives", "panels"},
    {"alerts", "dashboards"},
    {"rules", "scrape_config"},
    {"rule_tests"},
    {"instrument"},
    {"server"},
    {"cli"},
    {"cli_observability"},
    {"__main__"},
]
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def imported(module) -> set[str]:
    """Return the modules of the package that a module imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "hr_prometheus":
            found |= {alias.name for alias in node.names if (PACKAGE / f"{alias.name}.py").exists()}
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("hr_prometheus."):
            found.add(node.module.removeprefix("hr_prometheus."))
        elif isinstance(node, ast.Import):
            found |= {n.name.removeprefix("hr_prometheus.") for n in node.names if n.name.startswith("hr_prometheus.")}
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_lower_floors_only(module):
    """Each module has one floor, and neither imports its neighbours nor anything above."""
    (floor,) = [number for number, modules in enumerate(FLOORS) if module in modules]
    assert imported(module) <= set().union(*FLOORS[:floor])


def test_every_floor_is_of_modules_that_exist():
    """The list above is the package, no more and no less."""
    assert sorted(set().union(*FLOORS)) == MODULES


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("cli")])
def test_only_the_command_line_prints_exits_and_knows_click(module):
    """Everything else can be used as a library."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert "click" not in modules
    assert not names & {"print", "exit"}
    assert "sys.exit" not in (PACKAGE / f"{module}.py").read_text()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_read_in_one_sitting(module):
    """About 300 lines a module, about 40 a function's body, without that of a function which it makes."""
    text = (PACKAGE / f"{module}.py").read_text()
    assert text.count("\n") <= 340
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(node) is not None and len(node.body) > 1
            first = node.body[0].end_lineno + 1 if documented else node.body[0].lineno
            made = [child for child in node.body if isinstance(child, ast.AsyncFunctionDef)]
            lines = node.end_lineno - first - sum(each.end_lineno - each.lineno for each in made)
            assert lines < (60 if node.name == "record_request" else 50), node.name  # that one is written out for speed
