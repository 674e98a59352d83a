"""The same application twice, with runners of its own: as it is, and instrumented."""

import asyncio
import sys

from aiohttp import web
from responses import create_app

from hr_prometheus import access_log_class, instrument


async def serve(app: web.Application, **arguments) -> str:
    runner = web.AppRunner(app, **arguments)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return "http://{}:{}".format(*runner.addresses[0][:2])


async def main() -> None:
    app = instrument(create_app())
    urls = [await serve(create_app()), await serve(app, access_log_class=access_log_class(app))]
    sys.stdout.write(f"serving {' '.join(urls)}\n")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
