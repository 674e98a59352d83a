"""Where metrics are: a URL as it is typed, with what may be shown of it."""

from __future__ import annotations

import re
import urllib.parse
from base64 import b64encode
from dataclasses import dataclass, field

from hr_prometheus.errors import ConfigurationError

_DEFAULT_PATH = "/metrics"
_DEFAULT_HOST = "127.0.0.1"
# A word, without spaces and quotes, up to its last "@". The words of a text are looked at once each, however long they are.
_HEAD = re.compile(r"""(?<![^\s"'])([^\s"']*)@""")
# The end of such a head: a scheme, or none, a user without a colon, and a password of anything.
_USER = re.compile(r"""(?<![^@/(])(?:(\w+://)[^:@/(]*:|[^:@/(]*:).*""", re.DOTALL)


@dataclass(frozen=True)
class Address:
    """A *url* without user and password, which may be shown. An empty *user* is none; a *password* of None was not given."""

    url: str
    user: str = field(default="", repr=False)
    password: str | None = field(default=None, repr=False)

    @property
    def authorization(self) -> str:
        """The header that user and password make, or empty."""
        if not self.user and self.password is None:
            return ""
        pair = f"{self.user}:{self.password or ''}"
        return f"Basic {b64encode(pair.encode()).decode()}"


def hide_passwords(text: str) -> str:
    """Return an error's text with ``***`` in the place of each user and password."""
    return _HEAD.sub(lambda head: _USER.sub(r"\1***", head[1], count=1) + "@", text)


def read_address(text: str) -> Address:
    """Return the address that *text* is short for: ``9100``, ``:9100``, ``host:9100``, or a URL of http or https.

    Without a path it is that of ``/metrics``. ``user:password@`` before the host is for basic authentication (RFC 7617).
    Raises :exc:`~hr_prometheus.errors.ConfigurationError`, which does not repeat the password.
    """
    short = re.sub(r"^:?(?=\d+(?:/|$))", f"{_DEFAULT_HOST}:", text)
    try:
        parts = urllib.parse.urlsplit(short if "://" in short else f"http://{short}")
        is_right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, an address of IPv6 without its end
        is_right = False
    # A password with a slash would be taken for a host and a path, which are shown.
    if not is_right or "@" in short.partition(parts.netloc)[2] or re.search(r"[\s\x00-\x1f\x7f]", text):
        shown = re.sub(r"^(\w+://)?.*@", r"\1***@", text, flags=re.DOTALL)
        advice = ' Elsewhere than before the host "@" is written "%40", and "/" in a password "%2F".' * ("@" in text)
        raise ConfigurationError(
            f'"{shown}" is not a URL of metrics. Expected an http or https URL, or a short form of one: "host:9100", "9100".'
            f"{advice}"
        )
    user, _, host = parts.netloc.rpartition("@")
    path = urllib.parse.quote(parts.path, safe="/%:!$&'()*+,;=~") if parts.path.strip("/") else _DEFAULT_PATH
    netloc = host if host.isascii() else host.encode("idna").decode()
    url = urllib.parse.urlunsplit((parts.scheme, netloc, path, parts.query, ""))
    if not user:
        return Address(url)
    name, colon, password = map(urllib.parse.unquote, user.partition(":"))
    return Address(url, name, password if colon else None)
