"""aiohttp's task for a request: how it is recognised, and what its error says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp.web import RequestHandler

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from types import CodeType


def _source_file(function: Callable[..., object]) -> str | None:
    code: CodeType | None = getattr(function, "__code__", None)
    return code.co_filename if code is not None else None


#: The file whose coroutines are aiohttp's tasks for requests.
_PROTOCOL_FILE = _source_file(getattr(RequestHandler, "start", len))


def is_request_task(task: asyncio.Task[Any] | None) -> bool:
    """Whether aiohttp made *task* for a request, so that it ends when the response has left."""
    try:
        return task.get_coro().cr_code.co_filename == _PROTOCOL_FILE  # type: ignore[union-attr, no-any-return]
    except AttributeError:
        return False


def is_closed_connection(error: BaseException) -> bool:
    """Whether *error* comes from a write to a connection that was lost."""
    cause: BaseException | None = error
    for _ in range(10):  # there may be a circle
        # The second is what asyncio's sendfile raises.
        if isinstance(cause, ConnectionError) or (
            isinstance(cause, RuntimeError) and cause.args == ("Transport is closing",)
        ):
            return True
        if cause is None:
            break
        cause = cause.__context__
    return False
