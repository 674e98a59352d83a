"""What the installed aiohttp has of the names that a request is recorded by."""

from contextlib import suppress

from aiohttp import http
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web import BaseRequest

#: Whether aiohttp calls ``on_body_write`` after each write of a server's response (since 3.14.4).
WRITES_ARE_REPORTED = hasattr(AbstractStreamWriter, "on_body_write")
#: Whether the head of a response waits for the first part of its body, or for ``send_headers`` (since 3.12).
HEADS_ARE_BUFFERED = hasattr(AbstractStreamWriter, "send_headers")
#: What of aiohttp's public names is needed and missing.
MISSING_NAMES = [
    f"{each.__name__}.{name}"
    for each, name in (
        (AbstractStreamWriter, "write_headers"),
        (AbstractStreamWriter, "write_eof"),
        (BaseRequest, "task"),
    )
    if not hasattr(each, name)
]


def _reserve_names() -> None:
    """Have a place for the attributes that an exchange sets in each instance of aiohttp's writer.

    The instances of a class share one table of names. CPython 3.11 closes it after some dozens of them, and a name that comes
    later costs each instance a dictionary. In a service that is scraped before its first request the writers of scrapes, which
    have none of these attributes, are the first.
    """
    with suppress(AttributeError, TypeError):  # the class may be another, or have slots
        writer = object.__new__(http.StreamWriter)
        for name in ("on_body_write", "write_headers", "send_headers", "write_eof"):
            setattr(writer, name, None)


_reserve_names()
