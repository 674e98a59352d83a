from __future__ import annotations

import tomllib

from hr_prometheus.commands.toml_lines import key_lines

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
        assert path[-1].partition(".")[0] in text[line - 1] or "inline" in path, path
    assert lines["top",] == 2
    assert lines["quoted key",] == 3
    assert lines["dotted", "inner", "key"] == 4
    assert lines["table", "array"] == 7
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

    assert set(key_lines(DOCUMENT)) == set(paths(tomllib.loads(DOCUMENT)))


def test_an_empty_document():
    """It has no keys."""
    assert key_lines("") == key_lines("\n# nothing\n\n") == {}
