"""What the tests of the status page share: a browser, and a server whose numbers they know."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from conftest import DEADLINE, count, wait_for
from prometheus_client import CollectorRegistry, Gauge
from selenium import webdriver

from hr_prometheus.exposition.view import make_view
from hr_prometheus.metrics import HOST
from hr_prometheus.request.records import Records
from hr_prometheus.status.view import TARGET, make_status_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent
NO_NUMBER = "\N{EN DASH}"
USER = "me:secret"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars "
    # The page of each test in the process of the one before, and none kept for the way back.
    "--process-per-site --renderer-process-limit=1 --disable-features=BackForwardCache,SpareRendererForSitePerProcess,"
    "WebUIOmniboxPopup,WebUIOmniboxAimPopup"  # whose pages would take half of the browser's start
)
#: Keeps what the page must not cause, from before its first script on.
WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => violations.push(`${event.violatedDirective} ${event.blockedURI}`));
addEventListener("error", (event) => violations.push(`error: ${event.message}`));
addEventListener("unhandledrejection", (event) => violations.push(`rejected: ${event.reason}`));
"""
#: Sets the clock of the page forward, as a computer that was asleep does.
SKIP = """
const now = performance.now.bind(performance);
performance.now = () => now() + 1000 * arguments[0];
"""
#: Returns where something in colour begins in each chart, from 0 at its left to 1 at its right, the widest part in which
#: there is nothing, where it ends, and how strong the strongest colour before its middle is, from 0 to 255.
#: Axes, lines and texts are grey.
COLOURED = """
return [...document.querySelectorAll(arguments[0])].map((canvas) => {
  const { left, width } = canvas.getBoundingClientRect();
  const plot = canvas.parentElement.querySelector(".u-over")?.getBoundingClientRect() ?? { left, width };
  const scale = canvas.width / width;
  const { data } = canvas.getContext("2d").getImageData((plot.left - left) * scale, 0, plot.width * scale, canvas.height);
  const columns = plot.width * scale | 0;
  const seen = [];
  let strongest = 0;
  for (let x = 0; x < columns; x++) {
    for (let y = 0; y < canvas.height; y++) {
      const [red, green, blue, alpha] = data.subarray(4 * (y * columns + x));
      if (alpha > 20 && Math.max(red, green, blue) - Math.min(red, green, blue) > 40) {
        if (x !== seen[seen.length - 1]) seen.push(x);
        if (x < columns / 2) strongest = Math.max(strongest, alpha);
      }
    }
  }
  const holes = seen.slice(1).map((x, index) => (x - seen[index]) / columns);
  return [seen[0] / columns, Math.max(0, ...holes), seen[seen.length - 1] / columns, strongest];
});
"""


class Server:
    """Serves the page over a registry in a thread, on one port for good, so that it can go away and come back."""

    def __init__(self) -> None:
        self.use(CollectorRegistry())
        self.polls: list[float] = []
        self.names: list[str] = []  # of the last poll
        self.status = 200
        self.answer: str | None = None
        self.delay = 0.0
        self.is_cut = False
        self.port = 0
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.start()

    def use(self, registry: CollectorRegistry, **options: object) -> None:
        """Show another registry, as after a restart with other options."""
        self.registry = registry
        self.records = Records(registry, detail="full", **options)
        self.recent: list[dict[str, object]] | None = []
        self.view = make_view(registry)

    def start(self) -> None:
        """Listen."""
        self._run(self._start())

    def stop(self) -> None:
        """Refuse connections, and close those that are open."""
        self._run(self.runner.cleanup())

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _run(self, coroutine: object) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(DEADLINE)

    async def _start(self) -> None:
        async def metrics(request: web.Request) -> web.StreamResponse:
            await asyncio.sleep(self.delay)
            self.polls.append(time.monotonic())
            self.names = request.query.getall("name[]", [])
            if self.is_cut:
                return await cut(request, await self.view(request))
            if self.answer is not None:
                return web.Response(text=self.answer)
            return await self.view(request) if self.status == 200 else web.Response(status=self.status)

        async def gather() -> list[dict[str, object]]:
            if self.recent is None:
                raise ConnectionError("the supervisor is gone")
            return self.recent

        app = web.Application()
        app[TARGET] = "shop:create_app"
        app.router.add_get("/a/prefix/status", make_status_view(metrics, gather=gather))
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self.runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}/a/prefix/status"

    def record(
        self,
        path: str,
        number: int = 1,
        *,
        status: int = 200,
        seconds: float = 0.02,
        method: str = "GET",
        host: str = "",
        route: str | None = None,
    ) -> None:
        """Record requests that have ended; *route* is the name of their route."""
        record = self.records.request((method, path, *((HOST, host) if host else ())), route)
        for _ in range(number):
            count(record, status, seconds)
            record.measure(seconds, 100, 10)


def show_starts(registry: CollectorRegistry, starts: dict[str, float]) -> Gauge:
    """Show when each worker has begun; one without workers is ""."""
    gauge = Gauge("process_start_time_seconds", "Start", ["worker"], registry=registry)
    for worker, start in starts.items():
        gauge.labels(worker).set(start)
    return gauge


def recent(path: str, age: float = 0) -> dict[str, object]:
    """Return a request that has failed so many seconds ago, as recent.json has it."""
    return {
        "time": time.time() - age, "method": "GET", "path": path, "host": None, "status": "503", "seconds": 1.5,
        "first_byte_seconds": None, "request_bytes": 5, "response_bytes": None, "trace": "4bf92f3577b34da6",
    }  # fmt: skip


async def cut(request: web.Request, response: web.Response) -> web.StreamResponse:
    """Send the first lines of a response, and close the connection."""
    part = web.StreamResponse(headers={"Content-Type": response.headers["Content-Type"]})
    part.enable_chunked_encoding()
    await part.prepare(request)
    await part.write(b"".join(response.body.splitlines(keepends=True)[:8]))
    request.transport.close()
    return part


class Page:
    """The page in the browser, as somebody sees and uses it."""

    def __init__(self, driver: object, server: Server) -> None:
        self.driver, self.server = driver, server

    def open(self) -> None:
        """Load it, and wait for its first numbers."""
        self.server.polls.clear()
        self.driver.get(self.server.url)
        self.wait(lambda: self.polls >= 1)

    def run(self, script: str, *arguments: object) -> object:
        return self.driver.execute_script(script, *arguments)

    @property
    def polls(self) -> int:
        return int(self.run("return document.body.dataset.polls ?? 0"))

    def poll(self) -> None:
        """Wait until the page shows what is so now. So far it has had an answer each time."""
        asked = len(self.server.polls)
        wait_for(lambda: len(self.server.polls), lambda polls: polls > asked)  # which asks the browser nothing
        self.wait(lambda: self.polls > asked)

    def wait(self, condition: Callable[[], object]) -> None:
        # Each look takes the browser some milliseconds, so it is asked ten times a second.
        wait_for(lambda: condition() or time.sleep(0.08), bool)

    def text(self, selector: str) -> str:
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector).strip()

    def texts(self, selector: str) -> list[str]:
        return self.run("return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText.trim())", selector)

    def click(self, selector: str) -> None:
        self.run("document.querySelector(arguments[0]).click()", selector)

    def keys(self, *keys: str) -> None:
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def point_at(self, selector: str) -> None:
        element = self.driver.find_element("css selector", selector)
        webdriver.ActionChains(self.driver).move_to_element(element).perform()

    def skip(self, seconds: float) -> None:
        """Let time go by, for the page alone."""
        self.run(SKIP, seconds)

    def coloured(self, selector: str) -> list[list[float | None]]:
        """Where each chart begins, its widest hole, where it ends, and how strong its first half is."""
        return self.run(COLOURED, selector)

    def routes(self) -> list[str]:
        """The routes of the table, from top to bottom."""
        return self.run("return [...document.querySelectorAll('#table tr[data-route]')].map((e) => e.dataset.route)")

    def cell(self, route: str, column: str) -> str:
        return self.text(f"tr[data-route='{route}'] td[data-column='{column}']").removeprefix("▲ ")

    def details(self) -> dict[str, str]:
        """The numbers below the open row, by their terms."""
        names, values = self.texts(".details dt"), self.texts(".details dd")
        return dict(zip(names, values, strict=True))

    def tile(self, name: str) -> str:
        return self.text(f"[data-tile='{name}'] .now").replace("\n", " ")

    def tile_of_range(self, name: str) -> str:
        """What a tile says of the time range."""
        return self.text(f"[data-tile='{name}'] .then").partition(": ")[2]


@pytest.fixture(scope="module")
def driver(component, tmp_path_factory) -> Iterator[object]:
    """The browser of all tests."""
    options = webdriver.ChromeOptions()
    options.binary_location = component("chromium")
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(component("chromedriver")))
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def shared_server(driver) -> Iterator[Server]:
    """The server of all tests."""
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(shared_server) -> Server:
    """The server, with nothing recorded."""
    shared_server.use(CollectorRegistry())
    shared_server.polls.clear()
    shared_server.status, shared_server.answer, shared_server.delay, shared_server.is_cut = 200, None, 0.0, False
    shared_server.url = f"http://127.0.0.1:{shared_server.port}/a/prefix/status"
    return shared_server


@pytest.fixture
def page(driver, server) -> Iterator[Page]:
    """The page, not yet open. At the end it must have left no message, asked nobody else and kept to its policy."""
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    resize(driver, 1360)
    page = Page(driver, server)
    yield page
    assert not (violations := page.run("return window.violations")), violations
    messages = [entry["message"] for entry in driver.get_log("browser")]
    # That a server cannot be reached, or refuses, is written by the browser itself.
    own = re.compile("ERR_CONNECTION|ERR_INCOMPLETE_CHUNKED|status of 503")
    assert not (others := [each for each in messages if not own.search(each)]), others
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = {
        each["params"]["request"]["url"].replace(f"//{USER}@", "//")
        for each in events
        if each["method"] == "Network.requestWillBeSent"
    }
    assert {url.partition("?")[0] for url in asked if url.startswith(("http", "ws"))} == {server.url}, asked
    page.run(
        "window.fetch = () => new Promise(() => {})"
    )  # it asks no more: a blank page would cost a fifth of an opening


def resize(driver, width: int) -> None:
    metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
