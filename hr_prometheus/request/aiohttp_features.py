"""What the installed aiohttp has of the names that a request is recorded by."""

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
