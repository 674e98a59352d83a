"""Where the body of a scrape is gzipped."""

from __future__ import annotations

import asyncio
import zlib

#: The parameter of zlib that makes it write gzip (zlib's manual, deflateInit2).
_GZIP = zlib.MAX_WBITS + 16


async def gzip(parts: list[bytes]) -> bytes:
    """Return the gzipped body. It is made in a thread if there are several *parts*, because that takes its time."""
    if len(parts) == 1:
        return _gzip(parts)
    return await asyncio.get_running_loop().run_in_executor(None, _gzip, parts)


def _gzip(parts: list[bytes]) -> bytes:
    compressor = zlib.compressobj(wbits=_GZIP)
    return b"".join([*map(compressor.compress, parts), compressor.flush()])
