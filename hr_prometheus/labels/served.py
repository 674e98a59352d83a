"""The path label of the request that is being served, for what else is recorded meanwhile."""

from __future__ import annotations

from contextvars import ContextVar

#: The label; empty outside of a request, and in one that is left out. aiohttp has a context of its own for each request.
served_path: ContextVar[str] = ContextVar("served_path", default="")


class _Notes:
    """Whether the middlewares note the label. Only what asks for it makes every request pay for it."""

    are_taken = False


notes = _Notes()


def note_path(labels: tuple[str, ...]) -> None:
    """Note the label of a request that begins, of its *labels*: method, path and so on, or none."""
    served_path.set(labels[1] if labels else "")
