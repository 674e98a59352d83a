"""The same service, instrumented by itself: run it with ``python examples/library.py``."""

import sys

from aiohttp import web
from service import create_app

from hr_prometheus import instrument


def create_instrumented_app(argv: list[str]) -> web.Application:
    """Make the service with its metrics; the names of the routes are checked when it starts up."""
    return instrument(create_app(argv), fixed_routes_parameters={"get_cell_neighbour": ["cell_id"]})


if __name__ == "__main__":
    web.run_app(create_instrumented_app(sys.argv[1:]), host="127.0.0.1", port=8080)
