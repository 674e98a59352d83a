"""The messages in the package's code: of its errors, and of its warnings and errors in the log."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hr_prometheus"
PAGE = ROOT / "docs" / "reference" / "errors.md"
ERRORS = {"ConfigurationError", "SettingError", "TargetError", "ServingError", "ScrapeError", "ApplicationError"}
LEVELS = {"warning", "error", "exception", "critical"}


def text_of(node: ast.expr, names: dict[str, ast.expr]) -> str:
    """Return an expression as text: what is only known when it runs is ``…``."""
    match node:
        case ast.Constant(value=str() as text):
            return re.sub(r"%(\.\d)?[srdfg]", "…", text)
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part, names) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left, names) + text_of(right, names)
        case ast.Name(id=name) if name in names:
            return text_of(names[name], {key: value for key, value in names.items() if key != name})
        case _:
            return "…"


@cache
def messages(path: Path) -> list[tuple[str, str]]:
    """Return the messages of a module: ``error`` or ``log``, and the text."""
    text = path.read_text()
    if not any(word in text for word in (*ERRORS, *(f".{level}(" for level in LEVELS))):  # which is seen sooner
        return []
    return list(_messages(ast.parse(text), {}))


def _messages(
    scope: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef, outer: dict[str, ast.expr]
) -> Iterator[tuple[str, str]]:
    """Iterate over the messages in a scope and in the functions in it, which know its names."""
    values = assignments(scope)
    nodes = [*scope.body]
    while nodes:
        node = nodes.pop(0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _messages(node, outer | {name: value for _line, name, value in values})
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Call):
            names = outer | {name: value for line, name, value in values if line < node.lineno}
            match node.func:
                case ast.Name(id=name) if name in ERRORS:
                    yield "error", error_text(name, node, names)
                case ast.Attribute(attr=level) if level in LEVELS and node.args and "log" in ast.unparse(node.func):
                    yield "log", text_of(node.args[0], names)


def assignments(scope: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef) -> list[tuple[int, str, ast.expr]]:
    """Return the names that are given in a scope, with their lines, in their order."""
    return sorted(
        (node.lineno, node.targets[0].id, node.value)
        for node in ast.walk(scope)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    )


def error_text(name: str, call: ast.Call, names: dict[str, ast.expr]) -> str:
    """Return the message of an error; that of a setting has its subject, problem and advice apart."""
    if name != "SettingError":
        return text_of(call.args[0], names) if call.args else ""
    words = {keyword.arg: text_of(keyword.value, names) for keyword in call.keywords}
    parts = [text_of(argument, names) for argument in call.args]
    problem = parts[2] if len(parts) > 2 else words.get("problem", "")
    advice = words.get("command_advice") or words.get("advice") or (parts[4] if len(parts) > 4 else "")
    return f"…{problem}{advice}"


#: What the modules are about, by the beginning of their paths. The first that fits counts.
TOPICS = {
    "server/target_file": "Scraping",
    "server": "Target, addresses and start",
    "workers": "Workers and reload",
    "multiprocess": "Workers and reload",
    "store/files": "Workers and reload",
    "labels": "Labels and routes",
    "names": "Metrics and monitors",
    "buckets": "Metrics and monitors",
    "store": "Metrics and monitors",
    "request": "Metrics and monitors",
    "event_loop": "Metrics and monitors",
    "instrumentation": "Metrics and monitors",
    "exposition": "Scraping",
    "access": "Who may read the metrics",
    "status": "Reading metrics with `top`",
    "commands/top": "Reading metrics with `top`",
    "observability": "Dashboards, rules and routes",
    "commands/rules": "Dashboards, rules and routes",
    "commands/dashboard": "Dashboards, rules and routes",
    "": "Settings and files",
}
#: How a message says itself what to do.
REPAIR = re.compile(
    r"\b(Expected|Give|Leave|Choose|Take|Install|Remove|Restart|Use|Name|Start|Serve|Add|Write|Run|Instrument|Have|Did you mean|Named routes|Its "
    r"parameters|names another|To group|Is it|leave the processes)\b"
)


def catalogue(kind: str) -> dict[str, list[str]]:
    """Return the messages of a kind by topic. What has no words of its own is left out."""
    topics: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = str(path.relative_to(PACKAGE))
        topic = next(topic for beginning, topic in TOPICS.items() if module.startswith(beginning))
        for each, text in messages(path):
            message = re.sub("…+", "…", text.replace("{}", "…"))
            if each == kind and len(re.findall(r"[a-z]{2,}", message)) > 2:
                topics.setdefault(topic, set()).add(message)
    return {topic: sorted(topics[topic], key=lambda text: text.lstrip('…":, ').lower()) for topic in sorted(topics)}


def advice_on_the_page() -> dict[str, str]:
    """Return the messages on the page, and what is written beside each."""
    return dict(re.findall(r"^\| `(.+?)` \| (.*?) ?\|$", PAGE.read_text(), re.MULTILINE))


def table_of(kind: str) -> str:
    """Return the tables of a kind of messages, with the advice that the page has."""
    advice = advice_on_the_page()
    parts = []
    for topic, texts in catalogue(kind).items():
        rows = [f"| `{text}` | {advice.get(text, '')} |" for text in texts]
        parts.append("\n".join([f"### {topic}", "", "| Message | What to do |", "|---|---|", *rows]))
    return "\n\n".join(parts)
