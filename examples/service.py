"""A service with several routes, which knows nothing of Prometheus.

Its map is a matrix of cells, 100 in a row, numbered from 0 to 9999. Serve it with its metrics:

    hr-prometheus run examples/service.py:create_app --fixed-route get_cell_neighbour=cell_id

With ``-- --traffic URL``, where URL is its own address, it also sends itself some requests, so that there is
something to see.
"""

import argparse
import asyncio
import random
from collections.abc import AsyncIterator, Callable

from aiohttp import ClientError, ClientSession, web

ROW = 100
CELLS = ROW * ROW
UNREADY = 0.1  # how many of the reports are not ready
STEPS = {"north": -ROW, "south": ROW, "east": 1, "west": -1}

routes = web.RouteTableDef()
names = web.AppKey("names", dict[int, str])


def cell_of(request: web.Request) -> int:
    """Return the cell that a request names."""
    text = request.match_info["cell_id"]
    if not text.isdecimal() or int(text) >= CELLS:
        raise web.HTTPNotFound(text=f"There is no cell {text}.\n")
    return int(text)


@routes.get("/health", name="health")
async def health(_request: web.Request) -> web.Response:
    """Say that the service is well."""
    return web.json_response({"status": "ok"})


@routes.get("/cells/{cell_id}", name="get_cell")
async def get_cell(request: web.Request) -> web.Response:
    """Return a cell with its name."""
    cell = cell_of(request)
    return web.json_response({"cell": cell, "name": request.app[names].get(cell)})


@routes.put("/cells/{cell_id}", name="name_cell")
async def name_cell(request: web.Request) -> web.Response:
    """Give a cell a name."""
    request.app[names][cell_of(request)] = await request.text()
    return web.Response(status=204)


@routes.get("/cell_neighbour/{cell_id}/direction/{direction}", name="get_cell_neighbour")
async def get_cell_neighbour(request: web.Request) -> web.Response:
    """Return the cell beside a cell."""
    cell, step = cell_of(request), STEPS.get(request.match_info["direction"])
    if step is None:
        raise web.HTTPBadRequest(text=f"The directions are {', '.join(STEPS)}.\n")
    neighbour = cell + step
    if not 0 <= neighbour < CELLS or (abs(step) == 1 and neighbour // ROW != cell // ROW):
        raise web.HTTPNotFound(text="The map ends there.\n")
    return web.json_response({"cell": cell, "neighbour": neighbour})


@routes.get("/report", name="report")
async def report(_request: web.Request) -> web.Response:
    """Take some time, and fail now and then."""
    await asyncio.sleep(random.uniform(0.05, 0.4))
    if random.random() < UNREADY:
        raise web.HTTPServiceUnavailable(text="The report is not ready. Try again.\n")
    return web.Response(text="All is well.\n")


def traffic_to(url: str) -> Callable[[web.Application], AsyncIterator[None]]:
    """Make a context in which an application sends requests to itself at *url*."""

    async def send(session: ClientSession) -> None:
        cell = random.randrange(CELLS)
        method, path = random.choice(
            [
                ("GET", f"/cell_neighbour/{cell}/direction/{random.choice([*STEPS, 'up'])}"),
                ("GET", f"/cells/{random.randrange(20)}"),
                ("PUT", f"/cells/{random.randrange(20)}"),
                ("GET", "/health"),
                ("GET", "/report"),
                ("GET", f"/nowhere/{cell}"),
            ]
        )
        try:
            async with session.request(method, url + path, data="somewhere" if method == "PUT" else None) as response:
                await response.read()
        except ClientError:
            await asyncio.sleep(0.5)  # the service is starting or stopping

    async def keep_sending(_app: web.Application) -> AsyncIterator[None]:
        async def forever() -> None:
            async with ClientSession() as session:
                while True:
                    await send(session)
                    await asyncio.sleep(0.02)

        task = asyncio.create_task(forever())
        yield
        task.cancel()

    return keep_sending


def create_app(argv: list[str]) -> web.Application:
    """Make the service; *argv* is what stands behind ``--`` on the command line."""
    parser = argparse.ArgumentParser(prog="service")
    parser.add_argument("--traffic", metavar="URL", help="send some requests to this address")
    options = parser.parse_args(argv)
    app = web.Application()
    app[names] = {}
    app.add_routes(routes)
    if options.traffic:
        app.cleanup_ctx.append(traffic_to(options.traffic))
    return app
