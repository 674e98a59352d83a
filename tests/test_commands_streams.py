"""What is printed of errors and warnings."""

from __future__ import annotations

import pytest

from hr_prometheus.commands.streams import cut_quotes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'--host "{"x" * 301}": it is no name.', f'--host "{"x" * 300}…": it is no name.'),
        (f'--host "{"x" * 300}" and', f'--host "{"x" * 300}" and'),
        (f'"a" {"word " * 100} "b" {"word " * 100} "', f'"a" {"word " * 100} "b" {"word " * 100} "'),
    ],
    ids=["long", "short", "between"],
)
def test_long_values(text, expected):
    """Their beginnings are quoted, and the words between quotes stay."""
    assert cut_quotes(text) == expected
