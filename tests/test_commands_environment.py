from __future__ import annotations

import os
import subprocess

import pytest
from conftest import CHARACTERS
from hypothesis import given
from hypothesis import strategies as st

from hr_prometheus.commands.environment import load_env_file, parse_env_file
from hr_prometheus.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("", {}),
        ("# a comment\n\n  # another\n", {}),
        ("A=1", {"A": "1"}),
        ("A=1\nB=2\n", {"A": "1", "B": "2"}),
        ("export A=1\n  export\tB = 2  \n", {"A": "1", "B": "2"}),
        ("export=1\nA.b-c=2", {"export": "1", "A.b-c": "2"}),
        ("A=\nB=\n", {"A": "", "B": ""}),
        ("A= # nothing\nB=#5 # a colour\nC=a#b", {"A": "", "B": "#5", "C": "a#b"}),
        ("A=two words\t# and a comment", {"A": "two words"}),
        ("A='$x # \\n \"y\"' # literal\n", {"A": '$x # \\n "y"'}),
        ('A="say \\"no\\"\\n\\t\\\\ # $HOME \\x"# none\n', {"A": 'say "no"\n\t\\ # $HOME \\x'}),
        ("A=\"-----BEGIN\nEND-----\"\nB='\n'", {"A": "-----BEGIN\nEND-----", "B": "\n"}),
        ("A=$B${C}\n", {"A": "$B${C}"}),
        ("A=postgres://u:p@h/d?x=y", {"A": "postgres://u:p@h/d?x=y"}),
        ("A=it's", {"A": "it's"}),
        ("A=1\nA=2", {"A": "2"}),
        ("A=ä", {"A": "ä"}),
    ],
)
def test_the_variables_of_a_file(text, variables):
    """Comments, quotes of both kinds and export are understood; nothing is substituted."""
    assert {name: value for name, (value, _) in parse_env_file(text, "f").items()} == variables


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("SECRET", 1),
        ("A=1\n\nSECRET: x", 3),
        ("=SECRET", 1),
        ("A=1\nB='SECRET\n", 2),
        ('A="SECRET', 1),
        ('A="x" SECRET', 1),
        ("A B=SECRET", 1),
        ("A=SECRET\0", 1),
        ("A='\n'\nexport SECRET", 3),
    ],
)
def test_a_line_that_is_no_variable(text, line):
    """It is named by its number, since what is in it may be a secret."""
    with pytest.raises(
        ConfigurationError, match=rf"^the setting on line {line} of \.env is not understood\. "
    ) as caught:
        parse_env_file(text, ".env")
    assert "SECRET" not in str(caught.value)


@given(
    st.dictionaries(
        st.from_regex("[A-Za-z_][A-Za-z0-9_]{0,9}", alphabet=CHARACTERS, fullmatch=True),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    )
)
def test_any_value_can_be_written(variables):
    """In double quotes, with a backslash before what has a meaning there."""
    quoted = {name: value.translate({ord(char): f"\\{char}" for char in '"\\$`'}) for name, value in variables.items()}
    text = "\n".join(f'{name}="{value}"' for name, value in quoted.items())
    assert {name: value for name, (value, _) in parse_env_file(text, "f").items()} == variables


def test_a_shell_reads_the_same(tmp_path):
    """What is in quotes means what it means in a shell."""
    (tmp_path / "env").write_text('export A=\'x  y\' # one\nB="a \\"b\\" \\$c \\\\"\nC=plain#\n')
    script = f'. "{tmp_path}/env"; printf "%s\\n" "$A" "$B" "$C"'
    printed = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True).stdout
    values = [value for value, _ in parse_env_file((tmp_path / "env").read_text(), "f").values()]
    assert printed.splitlines() == values


@pytest.mark.parametrize("entry", ["# a comment\n", "A=1\n", "A='\n\n'\n"])
def test_the_lines_of_a_large_file(entry):
    """Each costs as much as in a small one: what counts all before it as well would take minutes."""
    variables = parse_env_file(entry * 100_000 + "B=2", "env")
    assert variables["B"] == ("2", 100_000 * entry.count("\n") + 1)


def test_what_is_set_stays(tmp_path, monkeypatch):
    """A variable that the process has keeps its value, an empty one too; the lines of the others are returned."""
    monkeypatch.setenv("HRP_SET", "before")
    monkeypatch.setenv("HRP_EMPTY", "")
    monkeypatch.delenv("HRP_NEW", raising=False)
    (tmp_path / "env").write_bytes(b"\xef\xbb\xbfHRP_SET=x\r\nHRP_EMPTY=x\r\nHRP_NEW=caf\xff\r\n")
    assert load_env_file(str(tmp_path / "env"), "env") == {"HRP_NEW": 3}
    assert (os.environ["HRP_SET"], os.environ["HRP_EMPTY"]) == ("before", "")
    assert os.environb[b"HRP_NEW"] == b"caf\xff"
    del os.environ["HRP_NEW"]  # monkeypatch would set it again


def test_a_file_that_cannot_be_read(tmp_path):
    """The sentence says why, and what was expected."""
    with pytest.raises(
        ConfigurationError, match=r"^env: No such file or directory\. Expected a file with lines of NAME=VALUE\.$"
    ):
        load_env_file(str(tmp_path / "none"), "env")
