from __future__ import annotations

import tomllib

import pytest

from hr_prometheus.commands.toml_lines import deepest_line, key_lines

DOCUMENT = r'''# a comment with [brackets] and "quotes
top = 1
"quoted key" = "# no comment [x]"
dotted.inner.key = 'a "literal" one'

[table] # with a comment
array = [ # of several lines
  "[", # ]
  [1, 2],
]
inline = {a = 1, b = {c = [2]}}
text = """
[not.a.table]
key = "no key" \
\""" still"""
literal = """""quoted"""""
raw = <<<
]'' 'x<<<

[ table . "sub.table" ]
key = 1979-05-27T07:32:00Z

[[list]]
name = "first"
[list.of]
x = 1
[[list]]
name = "second"
'''.replace("<<<", "'" * 3)


def test_the_line_of_each_key():
    """Strings, comments and arrays of several lines do not confuse it."""
    lines = key_lines(DOCUMENT)
    text = DOCUMENT.splitlines()
    for path, line in lines.items():
        if isinstance(path[-1], int):
            continue
        assert path[-1].partition(".")[0] in text[line - 1] or "inline" in path, path
    assert lines["top",] == 2
    assert lines["quoted key",] == 3
    assert lines["dotted", "inner", "key"] == 4
    assert lines["table", "array"] == 7
    assert (lines["table", "array", 0], lines["table", "array", 1]) == (8, 9)
    assert lines["table", "inline", "b", "c"] == lines["table", "inline"] == 11
    assert lines["table", "literal"] == 16
    assert lines["table", "sub.table", "key"] == 21
    assert lines["list", "name"] == 24
    assert lines["list", "of", "x"] == 26


def test_no_key_is_left_out_or_made_up():
    """They are those that tomllib reads."""

    def paths(value, *above):
        if isinstance(value, list):
            for each in value:
                yield from paths(each, *above)
        elif isinstance(value, dict):
            for key, inner in value.items():
                yield (*above, key)
                yield from paths(inner, *above, key)

    keys = {path for path in key_lines(DOCUMENT) if not isinstance(path[-1], int)}
    assert keys == set(paths(tomllib.loads(DOCUMENT)))


def test_an_empty_document():
    """It has no keys."""
    assert key_lines("") == key_lines("\n# nothing\n\n") == {}


def test_the_items_of_an_array():
    """Each has its line, unless that is its key's; those of arrays and tables in it have none of their own."""
    lines = key_lines('a = ["[", # ]\n"b",\n\n[\n"c",\n"d"], """\n,\n""", "e"\n]\nb = [1, 2]\nc = {d = [\n1], e = 2}\n')
    assert {path: line for path, line in lines.items() if isinstance(path[-1], int)} == {
        ("a", 1): 2, ("a", 2): 4, ("a", 3): 6, ("a", 4): 8
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("# a comment\n" * 100_000 + "a = 1", 1),
        ("".join(f"key{number} = 1\n" for number in range(30_000)), 30_000),
        ("a = [" + "'b',\n" * 30_000 + "]", 30_000),
        (f"a = '{'b' * 3_000_000}'", 1),
        (f"{'a.' * 3000}b = 1", 32),
    ],
    ids=["comments", "keys", "items", "text", "names"],
)
def test_a_large_document(text, keys):
    """A line costs as much as in a small one: what reads all before it as well would take an hour."""
    assert len(key_lines(text)) == keys


def test_the_line_of_the_deepest_bracket():
    """It is the first one with so many, and those in strings and comments do not count."""
    assert deepest_line("a = '[['\nb = [\n[] # [\n]\nc = [[]]") == 3
    assert deepest_line("") == 1
    assert deepest_line("a = 1\nb = " + "[" * 200_000) == 2
