"""The layout is a rule: a module imports from lower floors only."""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import hr_prometheus

PACKAGE = Path(hr_prometheus.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path.read_text()
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.stem != "__init__"
}
#: The rooms, from the ground up. One imports from the floors below it only, never from its neighbours.
FLOORS = (
    "errors metric quotes",
    "metrics",
    "buckets names",
    "labels store",
    "written_forms",
    "origins",
    "client request exposition settings",
    "access pytest_plugin",
    "middleware monitors view event_loop status",
    "instrumentation multiprocess",
    "server",
    "workers observability",
    "commands",
    "cli",
    "__main__",
)


@cache
def nodes_of(text: str) -> list[ast.AST]:
    """Return all nodes of a module's tree."""
    return list(ast.walk(ast.parse(text)))


def imported(text: str) -> set[str]:
    """Return what of ours a module imports, wherever it does: ``metrics``, ``labels.policies.ALL``."""
    names = set()
    for node in nodes_of(text):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    names = {name.removeprefix("hr_prometheus.") for name in names if name.startswith("hr_prometheus.")}
    return names - {"__version__"}


def test_a_module_imports_from_lower_floors_only():
    """A room knows nothing of those above and beside it."""
    for module, text in MODULES.items():
        room = module.partition(".")[0]
        (floor,) = (number for number, rooms in enumerate(FLOORS) if room in rooms.split())
        allowed = {room, *" ".join(FLOORS[:floor]).split()}
        assert {name.partition(".")[0] for name in imported(text)} <= allowed, module


def test_contributing_has_the_same_rooms():
    """A newcomer reads in CONTRIBUTING.md who may import a room: those who stand on a higher floor."""
    lines = PACKAGE.with_name("CONTRIBUTING.md").read_text().splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("| `")]
    shown = [(room, who) for rooms, _, who in table for room in re.findall(r"`(\w+)/?`", rooms)]
    above = [f"{', '.join(f'`{room}`' for room in rooms.split())} and above" for rooms in FLOORS[1:]]
    expected = zip(FLOORS, [*above, "none"], strict=True)
    assert sorted(shown) == sorted((room, who) for rooms, who in expected for room in rooms.split())


def test_imports_have_an_order():
    """No module imports itself by way of others, except for types."""
    graph = {}
    for module, text in MODULES.items():
        names = imported(re.sub(r"^if TYPE_CHECKING:\n(?: .*\n|\n)+", "", text, flags=re.MULTILINE))
        graph[module] = {name if name in MODULES else name.rpartition(".")[0] for name in names} - {module}
    assert set(TopologicalSorter(graph).static_order()) >= set(MODULES)


def test_only_the_command_line_prints_exits_and_knows_click():
    """Everything else can be used as a library."""
    for module, text in MODULES.items():
        if not module.startswith(("cli", "commands.")):
            names = {node.id for node in nodes_of(text) if isinstance(node, ast.Name)}
            imports = {alias.name for node in nodes_of(text) if isinstance(node, ast.Import) for alias in node.names}
            assert "click" not in imports, module
            assert not names & {"print", "exit"}, module
            assert "sys.exit" not in text, module


def test_a_module_can_be_read_in_one_sitting():
    """About 300 lines a module."""
    assert {module: text.count("\n") for module, text in MODULES.items() if text.count("\n") > 340} == {}


def test_a_function_can_be_read_at_a_glance():
    """About 40 lines a function's body, without that of a function which it makes."""
    for node in (node for text in MODULES.values() for node in nodes_of(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            has_docstring = ast.get_docstring(node) is not None and len(node.body) > 1
            first = node.body[0].end_lineno + 1 if has_docstring else node.body[0].lineno
            inner = [child for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)]
            lines = node.end_lineno - first - sum(each.end_lineno - each.lineno for each in inner)
            assert lines < 50, node.name
