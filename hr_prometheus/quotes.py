"""How errors, logs and listings quote what a person typed, which may be a secret in a wrong place."""

from __future__ import annotations

import re

#: PEM text, or a hash of bcrypt: secrets wherever they stand.
_SECRET = re.compile(r"-----BEGIN|\$2[abxy]\$")
#: A path without a dot that may be a key or a token: hexadecimal digits, letters and digits, or base64, also as a part of an
#: absolute one. A path of words has no digits, or neither capital
#: letters nor the signs of base64.
_TOKEN = re.compile(
    r"\A(?:[0-9a-fA-F-]{24,}|(?=.*\d)[A-Za-z0-9]{24,}|(?!/)(?=.*\d)(?=.*[A-Z+=])(?=.*[a-z])[A-Za-z0-9+/=_\s-]{24,})\Z"
    r"|(?:\A|/)(?=[^/]*\d)[A-Za-z0-9+=]{32,}(?:/|\Z)"
)
_LONGEST_PATH = 255


def hide_secret(text: str, *, is_path: bool = False) -> str:
    """Return *text*, or its length in words if it may be a secret. A path may be one more often than another value."""
    may_be_secret = bool(_SECRET.search(text)) or (
        is_path and (len(text) > _LONGEST_PATH or not text.isprintable() or bool(_TOKEN.search(text)))
    )
    return f"({len(text)} characters, which may be a secret)" if may_be_secret else text


def hide_pem(text: str) -> str:
    """Return *text* without the PEM text in it, such as a private key."""
    return re.sub("-----BEGIN(?:.*-----|.*)", "(PEM text)", text, flags=re.DOTALL)


def quote(text: str, *, is_path: bool = False) -> str:
    """Return *text* in quotes, or its length in words if it may be a secret."""
    hidden = hide_secret(text, is_path=is_path)
    return f'"{text}"' if hidden == text else hidden


def quote_path(path: str) -> str:
    """Return a *path* in quotes, or its length in words if it may be a secret."""
    return quote(path, is_path=True)
