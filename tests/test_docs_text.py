"""The README and the manual as texts: their links, their length, their words."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from typing import TYPE_CHECKING

import click
import pytest
from manual import DOCS, PAGES, README, ROOT, sentences_in, sentences_of, without_blocks
from messages_in_the_code import PACKAGE, messages
from test_architecture import FLOORS

import hr_prometheus
from hr_prometheus.commands.group import cli

if TYPE_CHECKING:
    from pathlib import Path


PROSE = pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"], ids=lambda page: str(page.relative_to(ROOT))
)


def links_of(text: str) -> list[str]:
    """Return the targets of the links outside code."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "`", without_blocks(text)))


def anchors_of(text: str) -> set[str]:
    """Return the anchors of the headings, as GitHub and the site have them."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


URLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
OURS = (URLS["Homepage"] + "/", URLS["Homepage"].replace("github.com", "raw.githubusercontent.com") + "/")


def leads_nowhere(link: str, page: Path) -> bool:
    """Whether a link to something of ours leads nowhere in this checkout."""
    path, _hash, anchor = link.partition("#")
    if path.startswith("https://"):
        if not path.startswith(OURS) or "/master/" not in path:
            return False
        target = ROOT / path.partition("/master/")[2]
    else:
        target = (page.parent / path).resolve() if path else page
    return not target.exists() or bool(anchor and anchor not in anchors_of(target.read_text()))


@PROSE
def test_the_links_lead_somewhere(page):
    """Each file and each heading is there."""
    assert [link for link in links_of(page.read_text()) if leads_nowhere(link, page)] == []


def test_the_links_work_on_a_package_index():
    """Each link of the README is absolute, and so are those of the package."""
    links = [*links_of(PAGES[README]), *URLS.values()]
    assert [link for link in links if not link.startswith("https://") or leads_nowhere(link, README)] == []
    assert len(links) > 20


def test_every_page_is_in_the_index():
    """By a link, and in the tree of the site."""
    index = PAGES[DOCS / "index.md"]
    for page in PAGES.keys() - {README, DOCS / "index.md"}:
        name = page.relative_to(DOCS)
        assert f"({name})" in index
        assert f"\n{name.with_suffix('')}\n" in index


def test_the_python_api_is_whole():
    """Each public name has its description."""
    page = PAGES[DOCS / "reference" / "python.md"]
    for name in hr_prometheus.__all__:
        assert re.search(rf"^\.\. auto\w+:: {name}$", page, re.MULTILINE), name


def test_the_architecture_has_every_layer():
    """The drawing has the rooms that the code has."""
    drawing = PAGES[DOCS / "architecture.md"].partition("## The layers\n\n```text\n")[2].partition("```")[0]
    for room in " ".join(FLOORS).split():
        assert room == "__main__" or re.search(rf"\b{room}\b", drawing), room


def test_the_readme_is_one_page():
    """It is read before a decision, so it is short. The manual has the rest."""
    assert len(PAGES[README].splitlines()) <= 180


def test_the_costs_in_the_readme_are_measured():
    """Each cell of its table is one of the manual's, and so is the stall that it boasts of."""
    costs = PAGES[DOCS / "explanation" / "costs.md"]
    table = re.search(r"<!-- costs: .*? -->\n(.*?)<!-- /costs -->", PAGES[README], re.DOTALL)[1]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    for label, *values in rows:
        lines = [line for line in costs.splitlines() if line.startswith(f"| {label} |")]
        assert {*values} <= {cell.strip() for line in lines for cell in line.split("|")}, label
    ours, theirs = (row[-1] for row in rows[:2])
    assert f"[{float(ours.split()[0]):.0f} ms instead of {' '.join(theirs.split())}]" in PAGES[README]


#: How many words a sentence has at most.
LONGEST = 25


@PROSE
def test_the_sentences_are_short(page):
    """A tired reader understands them at once."""
    assert [each for each in sentences_of(page.read_text()) if len(each.split()) > LONGEST] == []


#: Words of a private vocabulary, and clumsy phrases.
CLUMSY = re.compile(
    r"\b(told|found|whoever|nobody|somebody|no one|what there is|of which|none of ours|thereof)\b",
    re.IGNORECASE,
)
#: So are these for those who use hr-prometheus and do not read its code.
CLUMSY_FOR_USERS = re.compile(
    CLUMSY.pattern
    + r"|\b(ones? that|anew|go(es)? on|(?<!there )(is|are) no (?!longer|more)|number of (the|a|this) process)\b",
    re.IGNORECASE,
)


@PROSE
def test_the_words_are_plain(page):
    """The field's words, in the active voice."""
    assert [each for each in sentences_of(page.read_text()) if CLUMSY_FOR_USERS.search(each)] == []


def messages_in_the_code():
    """Return the messages of errors and of the log."""
    return {text for path in PACKAGE.rglob("*.py") for _kind, text in messages(path)}


def texts_of_the_help():
    """Return what the help says of the commands and their options."""
    return {
        text
        for command in cli.commands.values()
        for text in (
            *(option.help for option in command.params if isinstance(option, click.Option)),
            *(part for part in inspect.cleandoc(command.help).split("\n\n") if not part.startswith("\b")),
        )
        if text
    }


@pytest.mark.parametrize("texts", [messages_in_the_code, texts_of_the_help])
def test_the_sentences_of_the_program_are_the_manuals(texts):
    """Errors, log lines and the help are as short and as plain as the manual."""
    sentences = [sentence for text in texts() for sentence in sentences_in(text)]
    assert len(sentences) > 100
    assert [each for each in sentences if len(each.split()) > LONGEST or CLUMSY_FOR_USERS.search(each)] == []


def test_no_name_makes_a_table_wider_than_its_page():
    """Messages and names are in code, and long: on a screen of any width they may be broken."""
    style = (DOCS / "_static" / "narrow.css").read_text()
    assert "\ntd code.literal,\nth code.literal {\n  overflow-wrap: anywhere;\n}" in style
    assert "nowrap" not in style


def test_the_words_of_docstrings_are_plain():
    """So are those that a reader of the code meets."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for path in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    texts = [ast.get_docstring(node) for node in nodes if isinstance(node, kinds)]
    assert len(texts) > 1000
    assert [text for text in texts if text and CLUMSY.search(text)] == []
