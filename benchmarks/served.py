"""Two applications for ``python -m aiohttp.web``, to see what a start takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Sequence


async def handle(_request: web.Request) -> web.Response:
    """Answer."""
    return web.Response(text="ok")


def bare(_argv: Sequence[str] = ()) -> web.Application:
    """Make an application without metrics."""
    app = web.Application()
    app.router.add_get("/plain", handle)
    return app


def by_hand(_argv: Sequence[str] = ()) -> web.Application:
    """Make one with prometheus_client in a middleware of its own."""
    import variants

    return variants.by_hand(variants.Variant())
