from __future__ import annotations

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hr_prometheus.observability.yaml_text import quote, render_yaml

#: What can be encoded: a lone surrogate cannot be in any file.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    TEXTS | st.integers() | st.booleans() | st.floats(-1e6, 1e6).map(lambda number: round(number, 3)),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(TEXTS, below, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=3))
def test_what_is_written_can_be_read(value):
    """Whatever texts, numbers, mappings and lists there are, a YAML parser finds them again."""
    assert yaml.safe_load(render_yaml(value, "a comment")) == value


@given(TEXTS)
def test_a_quoted_text_is_one_line(text):
    """Nothing in it ends the line, and a YAML parser finds the text again."""
    assert quote(text).isprintable()
    assert yaml.safe_load(quote(text)) == text


def test_it_is_written_as_people_do():
    """Words are plain, what could be taken for something else is quoted, and several lines are a block."""
    value = {"a": ["b", {"c": "on", "d": 1}, {}, []], "e": "two\nlines", "f": {"g": True}, "expr": 'up{job="x"}'}
    assert render_yaml(value, "Made by hand.", "") == (
        '# Made by hand.\n#\na:\n  - b\n  - c: "on"\n    d: 1\n  - {}\n  - []\n'
        'e: |-\n  two\n  lines\nf:\n  g: true\nexpr: |-\n  up{job="x"}\n'
    )
