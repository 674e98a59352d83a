"""The README and the pages of the manual."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
#: A test of its own follows it, step by step.
TUTORIAL = DOCS / "tutorial.md"
PAGES = {path: path.read_text() for path in [README, *sorted(DOCS.rglob("*.md"))]}
MANUAL = "\n".join(PAGES.values())

_FENCE = re.compile(r"^( *)```.*?^\1```", re.DOTALL | re.MULTILINE)


def blocks(language: str, text: str = MANUAL) -> list[str]:
    """Return the code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def without_blocks(text: str) -> str:
    """Return a text without its code blocks and its comments."""
    return re.sub(r"<!--.*?-->", "\n\n", _FENCE.sub("\n\n", text), flags=re.DOTALL)


def sentences_of(text: str) -> list[str]:
    """Return the sentences for people: those of paragraphs, items, headings and cells. Inline code counts as a word."""
    text = re.sub(r"`[^`]+`", "`code`", without_blocks(text))
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("**", "")
    parts = re.split(r"\n\s*\n|\n *(?:-|#+|\d+\.) |\||<br>", text)
    return [each for part in parts for each in sentences_in(part)]


def sentences_in(text: str) -> list[str]:
    """Return the sentences of a paragraph."""
    return [
        " ".join(each.split()) for each in re.split(r"(?<=[.!?])\)?\s+(?=\W?[A-Z0-9`]|hr-|aiohttp |systemd )", text)
    ]
