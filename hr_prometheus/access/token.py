"""Bearer tokens in files (RFC 6750)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hr_prometheus.access.files import read_file
from hr_prometheus.errors import ServingError, SettingError
from hr_prometheus.quotes import quote_path

if TYPE_CHECKING:
    from collections.abc import Callable

#: What can stand behind "Bearer" (RFC 6750, 2.1).
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")


def read_token(path: str, setting: str, read: Callable[[str], bytes] = read_file) -> bytes:
    """Return the token in the file that a *setting* names. Spaces and line ends may surround it.

    Raises :exc:`~hr_prometheus.errors.SettingError` for another text, and :exc:`~hr_prometheus.errors.ServingError` for a file
    that cannot be read.
    """
    subject = f"--{setting.replace('_', '-')} {quote_path(path)}"
    try:
        token = read(path).strip()
    except OSError as error:
        raise ServingError(f"{subject}: {error.strerror}. Expected a file with a token.") from error
    if not token:
        raise SettingError(setting, subject, " is empty. Expected a token, as openssl rand -hex 32 writes it.")
    if not _TOKEN.fullmatch(token):
        problem = " has more than a token. Expected letters, digits and -._~+/ without spaces, as openssl rand -hex 32 writes them."
        raise SettingError(setting, subject, problem)
    return token
