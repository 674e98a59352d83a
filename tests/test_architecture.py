"""The layout is a rule: a module imports from lower floors only."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hr_prometheus

PACKAGE = Path(hr_prometheus.__file__).parent
#: The rooms, from the ground up. One imports from those below it only, never from its neighbours.
FLOORS = (
    "errors metrics",
    "labels store",
    "request exposition settings",
    "middleware monitors view",
    "instrumentation multiprocess",
    "server",
    "workers observability",
    "commands",
    "cli",
    "__main__",
)
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
)


def source(module) -> str:
    """Return the text of a module."""
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text()


class WithoutTypes(ast.NodeTransformer):
    """Leaves what runs: imports for the type checker are none."""

    def visit_If(self, node):  # the name is that of ast
        return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else self.generic_visit(node)


def imported(module, *, for_types=True) -> set[str]:
    """Return the modules of the package that a module imports, wherever it does."""
    found = set()
    tree = ast.parse(source(module))
    for node in ast.walk(tree if for_types else WithoutTypes().visit(tree)):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("hr_prometheus."):
            package = f"{node.module}.".removeprefix("hr_prometheus.")
            modules = {package + alias.name for alias in node.names} & set(MODULES)
            found |= modules or {package.removesuffix(".")} - {""}
        elif isinstance(node, ast.Import):
            found |= {n.name.removeprefix("hr_prometheus.") for n in node.names if n.name.startswith("hr_prometheus.")}
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_lower_rooms_only(module):
    """A room knows nothing of those above and beside it."""
    room = module.split(".")[0]
    (floor,) = (number for number, rooms in enumerate(FLOORS) if room in rooms.split())
    below = {room, *" ".join(FLOORS[:floor]).split()}
    assert {name.split(".")[0] for name in imported(module)} <= below


def test_imports_have_an_order():
    """No module imports itself by way of others."""
    order = TopologicalSorter({module: imported(module, for_types=False) - {module} for module in MODULES})
    assert set(order.static_order()) >= set(MODULES)


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith(("cli", "commands."))])
def test_only_the_command_line_prints_exits_and_knows_click(module):
    """Everything else can be used as a library."""
    tree = ast.parse(source(module))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert "click" not in modules
    assert not names & {"print", "exit"}
    assert "sys.exit" not in source(module)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_read_in_one_sitting(module):
    """About 300 lines a module, about 40 a function's body, without that of a function which it makes."""
    text = source(module)
    assert text.count("\n") <= 340
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(node) is not None and len(node.body) > 1
            first = node.body[0].end_lineno + 1 if documented else node.body[0].lineno
            made = [child for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)]
            lines = node.end_lineno - first - sum(each.end_lineno - each.lineno for each in made)
            assert lines < 50, node.name
