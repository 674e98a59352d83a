"""Whether a client that leaves has its handler cancelled: as aiohttp has it, as a script has it, as an option says."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest
from conftest import counts, read_line, wait_for
from test_serving import scrape

SCRIPT = """
import asyncio
from aiohttp import web
async def slow(request):
    print('begun', flush=True)
    try:
        await asyncio.sleep(0.5)
    except asyncio.CancelledError:
        print('cancelled', flush=True)
        raise
    print('went on', flush=True)
    return web.Response()
app = web.Application()
app.router.add_get('/slow', slow)
async def main():
    runner = web.AppRunner(app, {arguments})
    await runner.setup()
    await web.TCPSite(runner, '127.0.0.1', 0).start()
    await asyncio.sleep(3600)
if __name__ == '__main__':
    {main}
"""
RUN_APP = SCRIPT.replace("{main}", "web.run_app(app, host='127.0.0.1', port=0, {arguments})")
RUNNER = SCRIPT.replace("{main}", "asyncio.run(main())")
WAYS = {
    "one process": (RUN_APP, "", ("script:app", "--port", "0")),
    "workers": (RUN_APP, "", ("script:app", "--port", "0", "--workers", "1")),
    "reload": (RUN_APP, "", ("script.py", "--reload")),
    "run_app": (RUN_APP, "", ("script.py",)),
    "run_app with cancellation": (RUN_APP, "handler_cancellation=True", ("script.py",)),
    "AppRunner": (RUNNER, "", ("script.py",)),
    "AppRunner with cancellation": (RUNNER, "handler_cancellation=True", ("script.py",)),
}


@pytest.mark.parametrize("option", ["", "--handler-cancellation", "--no-handler-cancellation"])
@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_leaves(serve, tmp_path, way, option):
    """Its handler is cancelled or goes on, and its request is one with status 499, either way."""
    script, arguments, target = WAYS[way]
    (tmp_path / "script.py").write_text(script.replace("{arguments}", arguments))
    service = serve(*target, *filter(None, [option]), cwd=tmp_path)
    url = urlsplit(service.url)
    with socket.create_connection((url.hostname, url.port)) as client:
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_line(service.process) == "begun\n"
    is_cancelled = option == "--handler-cancellation" if option else bool(arguments)
    assert read_line(service.process) == ("cancelled\n" if is_cancelled else "went on\n")
    expected = {("GET", "/slow", "499"): 1}
    assert wait_for(lambda: counts(scrape(service)), bool) == expected
    assert 'requests_in_progress{method="GET",path="/slow"} 0.0' in scrape(service)
    service.stop(2)
