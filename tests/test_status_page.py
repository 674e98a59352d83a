"""The status page in a real browser, over a registry whose numbers the tests know."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import socket
import threading
import time
from bisect import bisect_left
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import bcrypt
import pytest
from aiohttp import web
from conftest import DEADLINE, count, samples, wait_for
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from selenium import webdriver

from hr_prometheus.client.records import CallRecord
from hr_prometheus.exposition.view import make_view
from hr_prometheus.metric import LATENCY_BUCKETS
from hr_prometheus.metrics import (
    HOST,
    REQUEST_COUNT,
    REQUEST_LATENCY,
    REQUEST_LOOP_TIME,
    REQUEST_SIZE,
    REQUESTS_IN_PROGRESS,
    RESPONSE_SIZE,
    WORKER_RESTARTS,
    WORKER_UP,
)
from hr_prometheus.names import NAME_SETS, Naming, exports_of
from hr_prometheus.request.records import Records
from hr_prometheus.status.view import TARGET, make_status_view
from hr_prometheus.store.store import client_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent
NO_NUMBER = "\N{EN DASH}"
USER = "me:secret"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars "
    # The page of each test in the process of the one before, and none kept for the way back.
    "--process-per-site --renderer-process-limit=1 --disable-features=BackForwardCache,SpareRendererForSitePerProcess"
)
#: Keeps what the page must not cause, from before its first script on.
WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => violations.push(`${event.violatedDirective} ${event.blockedURI}`));
addEventListener("error", (event) => violations.push(`error: ${event.message}`));
addEventListener("unhandledrejection", (event) => violations.push(`rejected: ${event.reason}`));
"""
#: What says that the tab is hidden: a headless browser shows all of its tabs.
HIDE = """
Object.defineProperty(document, "hidden", { configurable: true, get: () => arguments[0] });
document.dispatchEvent(new Event("visibilitychange"));
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


#: Refuses what the page has to know of its server.
REFUSE_CONFIG = """
const ask = window.fetch;
window.fetch = (url, ...more) => (url.includes("config.json") ? Promise.resolve(new Response("", { status: 403 })) : ask(url, ...more));
"""
#: Returns the colour of each class of statuses in shades of grey, from 0 to 255, as Rec. 601 has them.
GREYS = """
const style = getComputedStyle(document.documentElement);
return ["5xx", "499", "4xx", "3xx", "2xx"].map((name) => {
  const [red, green, blue] = style.getPropertyValue(`--class-${name}`).match(/\\w\\w/g).map((each) => parseInt(each, 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue;
});
"""
#: Uses the page between the answer to its first poll and its first numbers, and counts how often it can.
USE_EARLY = """
let isAnswered = false;
window.turns = 0;
const text = Response.prototype.text;
Response.prototype.text = async function () {
  const answer = await text.call(this);
  isAnswered ||= answer.includes("request_count_total");
  return answer;
};
const timer = setInterval(() => {
  if (document.body?.dataset.polls) clearInterval(timer);
  else if (isAnswered) {
    turns++;
    document.querySelector("#range input").click();
    document.querySelector("#filter").dispatchEvent(new Event("input"));
  }
}, 1);
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
    assert page.run("return window.violations") == []
    messages = [entry["message"] for entry in driver.get_log("browser")]
    # That a server cannot be reached, or refuses, is written by the browser itself.
    own = re.compile("ERR_CONNECTION|ERR_INCOMPLETE_CHUNKED|status of 503")
    assert [each for each in messages if not own.search(each)] == []
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = {
        each["params"]["request"]["url"].replace(f"//{USER}@", "//")
        for each in events
        if each["method"] == "Network.requestWillBeSent"
    }
    assert {url.partition("?")[0] for url in asked if url.startswith(("http", "ws"))} == {server.url}
    page.run(
        "window.fetch = () => new Promise(() => {})"
    )  # it asks no more: a blank page would cost a fifth of an opening


def resize(driver, width: int) -> None:
    metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def quantile(q: float, seconds: list[float], bounds: tuple[float, ...] = LATENCY_BUCKETS) -> float:
    """Return what Prometheus' histogram_quantile says of a histogram with these observations, in seconds."""
    places = [bisect_left(bounds, each) for each in seconds]
    rank = q * len(seconds)
    below = 0
    for place, (low, high) in enumerate(pairwise((0.0, *bounds))):
        within = places.count(place)
        if below + within >= rank:
            return low + (high - low) * (rank - below) / within
        below += within
    raise AssertionError("above the last bound")


def test_the_numbers_are_those_of_the_scrape(page, server):
    """Counts, shares and quantiles of what has happened since the page was opened, and totals since the start."""
    server.record("/cells", 5)
    server.record("/cells", 2, status=404)
    server.records.request(("PUT", "/cells")).begin()
    page.open()
    assert page.cell("GET /cells", "5xx") == NO_NUMBER  # nothing has happened yet
    seconds = [0.003] * 10 + [0.04] * 20 + [0.3] * 9 + [0.8]
    for number, each in enumerate(seconds):
        server.record("/cells", status=(200, 200, 500, 404)[number % 4], seconds=each)
    server.record("/other", 1, status=499)
    page.poll()
    assert page.cell("GET /cells", "5xx") == page.cell("GET /cells", "4xx") == "25 %"
    assert page.cell("GET /other", "499") == "100 %"
    for q in (0.5, 0.95):
        assert page.cell("GET /cells", f"p{q * 100:.0f}") == f"{quantile(q, seconds) * 1000:.0f} ms"
    assert page.cell("PUT /cells", "progress") == page.tile("In progress") == "1"
    page.click("tr[data-route='GET /cells'] button")
    details = page.details()
    assert details["Requests"] == "40"
    assert details["Mean latency"] == f"{sum(seconds) / len(seconds) * 1000:.0f} ms"
    assert details["Sent"].startswith("100 B a request")
    scrape = samples(generate_latest(server.registry).decode())
    for status in ("200", "404", "500"):
        assert float(details[status]) == scrape[f'request_count_total{{method="GET",path="/cells",status="{status}"}}']
    page.click("#pause")  # so that the rate is that of the polls which are counted now
    watched = server.polls[page.polls - 1] - server.polls[0]
    assert float(page.cell("GET /cells", "rate")) == pytest.approx(40 / watched, rel=0.5)
    assert page.tile("Errors, 5xx") == "24 %"  # 10 of 41
    assert "GET/cells" in page.text("#attention .failing").replace(" ", "").replace("\n", "")


def test_sort(page, server):
    """By any column, either way; those without a number come last."""
    server.record("/never", 1)
    page.open()
    for path, number, seconds in [("/often", 30, 0.01), ("/slow", 10, 3.0), ("/seldom", 5, 0.2)]:
        server.record(path, number, seconds=seconds)
    page.poll()
    assert page.routes() == ["GET /often", "GET /slow", "GET /seldom", "GET /never"]
    for column, expected in [
        ("p95", ["/slow", "/seldom", "/often", "/never"]),
        ("p95", ["/often", "/seldom", "/slow", "/never"]),
        ("route", ["/never", "/often", "/seldom", "/slow"]),
        ("route", ["/slow", "/seldom", "/often", "/never"]),
    ]:
        page.click(f"th[data-column='{column}'] button")
        assert page.routes() == [f"GET {path}" for path in expected]
    assert page.run("return document.querySelectorAll('#table [aria-sort]').length") == 1
    assert page.run("return document.querySelector('#table [aria-sort]').ariaSort") == "descending"


def test_filter_and_keyboard(page, server):
    """Words in any order narrow the table. It is all done with the keyboard."""
    for path in ("/cells/{id}", "/cells", "/users/{id}"):
        server.record(path)
        server.record(path, method="PUT")
    page.open()
    page.keys("/")
    page.keys("cells put")
    assert sorted(page.routes()) == ["PUT /cells", "PUT /cells/{id}"]
    assert page.text("#routes-count") == "2 of 6"
    page.keys("x")
    assert page.routes() == []
    assert page.text("#empty") == "No route has these words."
    page.keys(webdriver.Keys.BACKSPACE * 10, "{id}")
    page.run("document.querySelector('#table .route').focus()")
    first = page.routes()[0]
    page.keys(webdriver.Keys.ENTER)
    assert page.run("return document.activeElement.ariaExpanded") == "true"
    assert page.text(".details dt") == "Requests"
    assert page.run("return document.querySelectorAll('.details canvas').length") > 2
    page.poll()
    assert page.routes()[0] == first  # no row moves away from under the focus
    page.keys(webdriver.Keys.ESCAPE)
    assert page.text(".details") == ""
    assert page.run("return document.activeElement.ariaExpanded") == "false"


def test_a_filter_under_the_pointer(page, server):
    """It shows its own rows, even if the filter before had as many."""
    server.record("/ok", 3)
    server.record("/boom", 3)
    page.open()
    page.point_at("#table tbody tr")
    assert page.run("return document.querySelector('#table tbody').matches(':hover')")
    page.keys("/")
    page.keys("ok")
    assert page.routes() == ["GET /ok"]
    page.run("document.querySelector('#filter').select()")
    page.keys("boom")
    assert page.routes() == ["GET /boom"]
    page.point_at("h1")


def test_routes_of_domains(page, server):
    """Those of one path differ by their domain, wherever a route is named."""
    hosts = ["one.example.org", "two.example.org"]
    for host in hosts:
        server.record("/report", host=host)
    page.open()
    for host in hosts:
        server.record("/report", 20, status=500, seconds=2, host=host)
    page.poll()
    for button in ("#table .route", "#attention .failing button", "#attention .slow button"):
        assert sorted(page.texts(f"{button} .host")) == hosts, button


def test_an_enormous_label(page, server):
    """It is cut, so that its numbers stay in view. Its title and its details have the whole."""
    path = "/" + "long" * 50
    for seconds in (0.1, 0.2):
        server.record(path, 20, status=500, seconds=seconds)
    server.recent.append(recent(path))
    for width, columns in [(1280, 12), (380, 4)]:
        resize(page.driver, width)
        page.open()
        page.wait(lambda: page.texts("#recent tbody td"))
        server.record(path, 20)
        page.poll()
        ends = page.run(
            "return [...document.querySelectorAll('#table th')].filter((e) => e.offsetWidth)"
            ".map((e) => Math.round(e.getBoundingClientRect().right))"
        )
        assert len(ends) == columns
        assert max(ends) <= width
        assert page.run("return document.querySelector('#table tr[data-route]').offsetHeight") < 100
        assert page.run("return document.querySelector('#table .route').title") == f"GET {path}"
        assert page.run("return document.querySelector('#recent td').title") == f"GET {path}"
        page.click("#table .route")
        page.poll()
        assert page.text(".details .label") == f"GET {path}"
        assert page.run("return document.querySelector('.details .label').getBoundingClientRect().right") <= width
        if width == 1280:
            assert page.run("return document.querySelector('#recent table').offsetWidth") <= width


def test_a_latency_above_the_last_bound(page, server):
    """It is shown as such, wherever it is shown, and never as a number."""
    server.record("/", 1)
    page.open()
    server.record("/", 20, seconds=1000)
    page.poll()
    page.click("#table .route")
    page.poll()
    assert page.tile("Latency, p50") == "> 10s"
    assert page.cell("GET /", "p50") == page.cell("GET /", "p99") == "> 10 s"
    assert page.details()["p95"] == "> 10 s"
    assert page.text("#attention .slow .value") == "p95 > 10 s p50 > 10 s"
    assert "p50\n> 10 s" in page.text("#charts")
    assert page.text("main").count("estimated") == 1


def test_what_is_called_slow(page, server):
    """The highest p95, of the routes with ten requests or more in the time that the page has seen, if it is near the highest."""
    server.record("/slow", 50, seconds=5)
    page.open()
    assert page.text("#attention .slow") == "No route has had 10 requests yet."
    server.record("/slow", 9, seconds=5)
    server.record("/often", 30)
    server.record("/slower", 30, seconds=1.5)
    page.poll()
    page.skip(20)
    page.poll()
    assert page.texts("#attention .slow .path") == ["/slower"]
    server.record("/slow", 1, seconds=5)
    page.poll()
    assert page.texts("#attention .slow .path") == ["/slow", "/slower"]
    assert page.text("#attention").count("10 requests or more") == 1
    for text in (page.text("#routes-count"), page.text("[data-tile='Requests'] .then")):
        assert re.search(r"\b2\d s\b", text), text
    page.skip(300)
    page.poll()
    assert page.text("#routes-count") == "3, over 5 min"


def test_many_routes(page, server):
    """The table grows on demand; a route that needs a look is opened wherever it is."""
    for number in range(120):
        server.record(f"/route/{number:03}", 2)
    page.open()
    server.record("/route/119", 10, status=503)
    for number in range(119):
        server.record(f"/route/{number:03}", 20)
    page.poll()
    assert len(page.routes()) == 50
    assert page.text("#more") == "Show 50 more of 120"
    page.click("#more")
    assert len(page.routes()) == 100
    assert page.text("#attention .failing .value").startswith("100 % 5xx")
    page.click("#attention .failing button")
    assert page.details()["5xx"] == "10 (100 %)"
    assert "GET /route/119" in page.routes()


def test_very_many_labels(page, server):
    """They are read piece by piece, and the page can be used meanwhile; the numbers are right afterwards."""
    for number in range(5000):
        server.record(f"/route/{number:04}", 2)
    script = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": USE_EARLY})
    page.open()
    page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    assert page.run("return turns") > 0
    assert page.text("#routes-count").startswith("5,000")
    server.record("/a/new/one", 3)
    server.record("/route/3210", 7, status=500)
    page.poll()
    assert page.cell("GET /route/3210", "5xx") == "100 %"
    assert page.text("#attention .failing .value") == "100 % 5xx 7 of 7"
    page.click("#table .route")
    assert page.details()["Requests"] == "7"


def test_pause(page, server):
    """A page that is paused asks for nothing, and goes on where it was."""
    server.record("/")
    page.open()
    page.click("#pause")
    assert page.text("#state").startswith("Paused at")
    page.wait(lambda: time.monotonic() - server.polls[-1] > 1.8)
    asked = len(server.polls)
    server.record("/", 7)
    page.keys("p")
    page.wait(lambda: page.text("#state") == "Live")
    assert len(server.polls) == asked + 1
    page.click("tr[data-route='GET /'] button")
    assert page.details()["Requests"] == "7"


def stop_polls(page: Page) -> None:
    """Pause the page."""
    page.click("#pause")


def refuse(page: Page) -> None:
    """Refuse the next poll."""
    page.server.status = 503
    page.wait(lambda: "it answers 503" in page.text("#state"))


def garble(page: Page) -> None:
    """Answer the next poll with lines of a scrape, and then with something else."""
    page.server.answer = 'request_count_total{method="GET",path="/new",status="200"} 1.0\n<p>\n'
    page.wait(lambda: "its answer is not a scrape" in page.text("#state"))


@pytest.mark.parametrize("interrupt", [stop_polls, refuse, garble])
def test_what_is_drawn_without_answers(page, server, interrupt):
    """The numbers of the last answer, after each choice of the reader."""
    server.record("/", 5)
    server.records.request(("GET", "/")).begin()
    Gauge("process_resident_memory_bytes", "Memory", registry=server.registry).set(5e6)
    page.open()
    server.record("/", 20)
    page.poll()

    def numbers() -> object:
        tables = "#table td:not([data-column=trend]), #processes td"
        return page.tile("Requests"), page.texts(".tile .now"), page.texts("#charts .legend"), page.texts(tables)

    def dark() -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark"}]
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    interrupt(page)
    shown = numbers()
    assert shown[0] != NO_NUMBER
    for choose in (lambda: page.click("#range input"), dark, lambda: page.run(HIDE, True) or page.run(HIDE, False)):
        choose()
        page.run("return matchMedia('(prefers-color-scheme: dark)').matches")
        assert page.run("return window.violations") == []
        assert numbers() == shown


def pause(page: Page, seconds: float) -> None:
    """Pause the page for some time."""
    page.click("#pause")
    page.skip(seconds)
    page.server.record("/", 1000)
    page.click("#pause")


def hide(page: Page, seconds: float) -> None:
    """Hide the tab for so long that the browser stops its timers."""
    page.run(HIDE, True)
    page.skip(seconds)
    page.server.record("/", 1000)
    page.run(HIDE, False)


def go_away(page: Page, seconds: float) -> None:
    """Stop the server, and start it again later."""
    page.server.stop()
    page.wait(lambda: page.text("#state").startswith("No metrics"))
    page.skip(seconds)
    page.server.record("/", 1000)
    page.server.start()


@pytest.mark.parametrize("interrupt", [pause, hide, go_away])
def test_a_time_without_answers_is_a_gap(page, server, interrupt):
    """In every chart and trend: what has happened meanwhile is counted, but its shape is not known."""
    server.record("/")
    page.open()
    page.click("#table .route")
    for _ in range(4):
        server.record("/", 20)
        page.skip(5)
        page.poll()
    before = page.polls
    interrupt(page, 30)
    page.wait(lambda: page.polls > before)
    for _ in range(3):
        server.record("/", 20)
        page.skip(5)
        page.poll()
    page.click("#pause")
    assert page.details()["Requests"] == "1,140"
    charts = page.coloured("#charts .plot canvas, .details .plot canvas, .spark")
    assert len(charts) == 7
    for number, (begin, hole, end, strength) in enumerate(charts):
        assert begin < 0.4, number
        assert hole > 0.3, number
        assert end > 0.8, number
        assert strength > 180, number


def test_a_hidden_tab_asks_seldom(page, server):
    """Every five seconds, and at once when it is looked at again; nothing is lost meanwhile."""
    server.record("/")
    page.open()
    page.run(HIDE, True)
    page.poll()  # it was under way, or set off already
    server.record("/", 9)
    page.poll()
    first, second = server.polls[-2:]
    assert second - first > 4
    page.run(HIDE, False)
    page.poll()
    assert server.polls[-1] - second < 4
    page.click("tr[data-route='GET /'] button")
    assert page.details()["Requests"] == "9"


def test_a_restart_of_the_server(page, server):
    """Counters that begin anew are seen as such: what was counted before stays, nothing is negative."""
    server.record("/", 100)
    page.open()
    server.record("/", 10)
    page.poll()
    server.use(CollectorRegistry())
    server.record("/", 4, status=500)
    page.poll()
    assert "The counters started again from 0 at" in page.text("#notices")
    page.click("tr[data-route='GET /'] button")
    details = page.details()
    assert (details["Requests"], details["2xx"], details["5xx"]) == ("14", "10 (71 %)", "4 (29 %)")
    assert details["500"] == "4"
    assert "200" not in details


@pytest.mark.parametrize("worker", ["", "0"])
def test_a_restart_that_no_counter_tells(page, server, worker):
    """The start of the process tells it, where all counters have passed what they were."""
    show_starts(server.registry, {worker: 1000})
    page.open()
    server.record("/", 3)
    page.poll()
    server.use(CollectorRegistry())
    show_starts(server.registry, {worker: 2000})
    server.record("/", 10)
    page.poll()
    page.wait(lambda: "The counters started again from 0 at" in page.text("#notices"))
    page.click("tr[data-route='GET /'] button")
    assert page.details()["Requests"] == "13"


def test_workers_that_are_started_again(page, server):
    """They are no restart of the server, whose counters go on."""
    restarts = Counter(WORKER_RESTARTS.name, "Restarts", ["worker", "reason"], registry=server.registry)
    starts = show_starts(server.registry, {"0": 1000, "1": 1001})
    page.open()
    server.record("/", 3)
    page.poll()
    for worker in ("0", "1"):
        restarts.labels(worker, "reload").inc()
        starts.labels(worker).set(2000)
    server.record("/", 10)
    page.poll()
    page.click("tr[data-route='GET /'] button")
    assert page.details()["Requests"] == "13"
    assert page.text("#notices") == ""


def test_an_answer_that_comes_late(page, server):
    """Rates are those of the time between two readings of the counters, not between two requests of the page."""
    server.record("/")
    page.open()
    server.delay = 2.5
    server.record("/", 100)
    page.poll()
    page.click("#pause")
    first, last = server.polls[0], server.polls[page.polls - 1]
    assert last - first > 2.5
    assert float(page.tile("Requests").removesuffix("/s")) == pytest.approx(100 / (last - first), rel=0.15)


def test_a_server_that_goes_away_and_returns(page, server):
    """The page says so, keeps what it has, and goes on by itself."""
    server.record("/", 3)
    page.open()
    server.stop()
    page.wait(lambda: page.text("#state").startswith("No metrics: the server cannot be reached. Trying again."))
    assert page.routes() == ["GET /"]
    server.record("/", 5)
    server.start()
    page.wait(lambda: page.text("#state") == "Live")
    server.status = 503
    page.wait(lambda: "it answers 503" in page.text("#state"))
    server.status = 200
    page.wait(lambda: page.text("#state") == "Live")
    page.click("tr[data-route='GET /'] button")
    assert page.details()["Requests"] == "5"


NO_SCRAPES = [
    "<!doctype html>\n<style>\nbody{margin:0;font:1em sans}\n</style>\n",
    "<!doctype html>\n<title>Sign in</title>\n",
    'request_count_total{method="GET",pa',
    'request_count_total{method="GET\n',
    "",
]


def test_an_answer_that_is_no_scrape(page, server):
    """A proxy may answer in the place of the server. The page says so, and its numbers are right afterwards."""
    server.record("/", 3)
    page.open()
    page.click("tr[data-route='GET /'] button")
    for number, answer in enumerate(NO_SCRAPES, 1):
        server.answer = answer
        page.wait(lambda: "its answer is not a scrape" in page.text("#state"))
        server.record("/", 5)
        server.answer = None
        page.wait(lambda: page.text("#state") == "Live")
        assert page.details()["Requests"] == f"{5 * number}", answer


def test_an_answer_that_is_cut_off(page, server):
    """It is none, even if it ends with a line: no counter seems to have begun anew."""
    for number in range(20):
        server.record(f"/{number}", 3)
    page.open()
    server.is_cut = True
    page.wait(lambda: page.text("#state").startswith("No metrics: the server cannot be reached."))
    server.is_cut = False
    page.wait(lambda: page.text("#state") == "Live")
    assert page.text("#notices") == ""


def test_a_page_that_was_opened_with_a_password(page, server):
    """It polls as any other, though browsers refuse relative URLs there."""
    url, server.url = server.url, server.url.replace("//", f"//{USER}@")
    server.record("/", 3)
    page.open()
    server.url = url
    assert page.routes() == ["GET /"]


def test_a_metrics_port_with_users(driver, serve, tmp_path):
    """The browser sends the password with all that the page asks for, once it has been typed."""
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    (tmp_path / "web.yml").write_text(f"basic_auth_users: {{me: {hashed}}}\n")
    service = serve(
        "served:app", "--port", "0", "--metrics-port", "0", "--metrics-web-config", str(tmp_path / "web.yml")
    )
    driver.get(service.metrics_url.replace("//", f"//{USER}@").removesuffix("metrics"))
    wait_for(lambda: int(driver.execute_script("return document.body.dataset.polls ?? 0")), lambda polls: polls >= 2)
    driver.get("about:blank")
    refused = [entry["message"] for entry in driver.get_log("browser") if "401" in entry["message"]]
    driver.get_log("performance")
    assert refused == []


def test_dark_and_narrow(page, server):
    """The colours follow the system, those of the charts as well. A telephone is wide enough."""
    server.record("/a/long/path/with/{a}/parameter/and/yet/another/{one}", 3)
    page.open()
    server.record("/a/long/path/with/{a}/parameter/and/yet/another/{one}", 30)
    page.poll()
    seen = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        page.poll()
        seen[scheme] = page.run(
            "const swatch = document.querySelector('.legend canvas');"
            "return [getComputedStyle(document.body).backgroundColor, swatch.toDataURL()]"
        )
    assert seen["light"][0] == "rgb(246, 247, 249)"
    assert seen["dark"][0] == "rgb(15, 19, 24)"
    assert seen["light"][1] != seen["dark"][1]
    page.click("#table .route")
    resize(page.driver, 380)
    page.poll()
    assert page.run("return document.documentElement.scrollWidth") <= 380
    shown = page.run(
        "return [...document.querySelectorAll('#table th')].filter((e) => e.offsetWidth && e.getBoundingClientRect().right <= 381)"
        ".map((e) => e.dataset.column)"
    )
    assert shown == ["route", "rate", "5xx", "p95"]


def test_statuses_without_colour(page, server):
    """Their classes differ by their shade, on both grounds."""
    server.record("/")
    page.open()
    seen = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        seen[scheme] = sorted(page.run(GREYS))
    assert seen["light"] != seen["dark"]
    for scheme, shades in seen.items():
        assert min(higher - lower for lower, higher in pairwise(shades)) > 24, (scheme, shades)


def test_the_picture_of_the_readme(page, serve, pytestconfig):
    """It is the page of the service that make demo serves, a minute after its start (--update-docs takes it)."""
    picture = ROOT / "docs" / "status-page.png"
    if not pytestconfig.getoption("--update-docs"):
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size < 150_000
        assert "docs/status-page.png" in (ROOT / "README.md").read_text()
        page.open()
        return
    command = re.search(r"hr-prometheus (run.*)\\\n\t\t(.*) \\", (ROOT / "Makefile").read_text())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    arguments = shlex.split(" ".join(command.groups()).replace("$(PORT)", port).replace("$(METRICS_PORT)", "0"))
    service = serve(*arguments[1:], "--", "--traffic", f"http://127.0.0.1:{port}", cwd=ROOT)
    page.server.url = service.metrics_url.removesuffix("metrics")
    metrics = {"width": 1200, "height": 860, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.open()
    for polls in (30, 65):
        page.wait(lambda polls=polls: page.polls > polls)
    page.driver.save_screenshot(str(picture))


def test_labels_are_text(page, server):
    """Whatever clients put into a label, it is shown as it is, and is never markup. What cannot be seen is written out."""
    hostile = "/<img src=x onerror=violations.push(1)>/\"'\\\n{}&amp;</script><script>violations.push(2)</script>\u202e"
    shown = hostile.replace("\n", "\\u{a}").replace("\u202e", "\\u{202e}")
    server.record(hostile, 3)
    page.open()
    server.record(hostile, 30, status=500)
    page.poll()
    page.click("#table .route")
    page.poll()
    assert page.run("return document.querySelector('#table .path').textContent") == shown
    assert page.run("return document.querySelector('#attention .path').textContent") == shown
    assert page.run("return document.querySelectorAll('img, main script').length") == 0


def test_a_prefix(page, server):
    """The names of the metrics may have one. A service without metrics of requests says so, and praises nothing."""
    server.use(CollectorRegistry(), prefix="shop_")
    page.open()
    assert page.text("#empty").startswith("There are no metrics of requests: none was recorded yet, or")
    assert page.text("#attention .failing") == "No metrics of requests are seen."
    server.record("/cells", 3)
    page.wait(lambda: page.routes() == ["GET /cells"])
    server.record("/cells", 8)
    page.poll()
    page.click("#table .route")
    assert page.details()["Requests"] == "8"


NAMES = [
    {"names": ["http"]},
    {"names": ["otel"]},
    {"names": ["otel", "http", "seed"]},
    {"names": ["otel", "http"], "prefix": "a_"},
    {"names": ["http"], "prefix": "shop_"},
    {"latency_by_status": True},
    {"names": ["otel"], "latency_by_status": True},
]


@pytest.mark.parametrize("options", NAMES, ids=str)
def test_other_names(page, server, options):
    """Whatever the metrics are called and told apart by, the numbers are the same, and each request is counted once."""
    server.use(CollectorRegistry(), **options)
    server.record("/cells", 5)
    server.record("/cells", 2, status=404)
    server.records.request(("PUT", "/cells")).begin()
    held, first = server.records.request(("GET", "/cells")).loop_time
    page.open()
    page.wait(lambda: "GET /cells" in page.routes())
    seconds = [0.003] * 10 + [0.04] * 20 + [0.3] * 9 + [0.8]
    for number, each in enumerate(seconds):
        server.record("/cells", status=(200, 200, 500, 404)[number % 4], seconds=each)
    held[first] += 0.04
    page.poll()
    page.click("#pause")
    assert sorted(page.routes()) == ["GET /cells", "PUT /cells"]
    assert page.cell("GET /cells", "5xx") == page.cell("GET /cells", "4xx") == page.tile("Errors, 5xx") == "25 %"
    assert page.cell("PUT /cells", "progress") == page.tile("In progress") == "1"
    page.click("tr[data-route='GET /cells'] button")
    details = page.details()
    assert [details[name] for name in ("Requests", "200", "404", "500")] == ["40", "25", "12", "10"]
    assert details["Mean latency"] == f"{sum(seconds) / len(seconds) * 1000:.0f} ms"
    for q in (0.5, 0.95):
        expected = f"{quantile(q, seconds) * 1000:.0f} ms"
        assert details[f"p{q * 100:.0f}"] == page.tile(f"Latency, p{q * 100:.0f}").replace("ms", " ms") == expected
    assert (details["Sent"][:15], details["Received"][:15]) == ("100 B a request", "10 B a request")
    assert details["Event loop"].startswith("1.0 ms a request")
    others = ("hr_", "client_")
    asked = [name for name in server.names if re.search("request|response", name) and not name.startswith(others)]
    assert len(asked) == 7  # those of one set
    assert all(name.startswith(options.get("prefix", "")) for name in asked)


def test_an_application_may_have_such_metrics_of_its_own(page, server):
    """The page shows ours, which have our help text."""
    server.use(CollectorRegistry(), names=["otel"])
    labels = ["method", "handler", "status"]
    own = Counter("http_requests", "The application's", labels, registry=server.registry).labels("GET", "api", "200")
    Histogram("http_request_duration_seconds", "The application's", labels[:2], registry=server.registry).labels(
        "GET", "api"
    )
    server.record("/cells", 5)
    page.open()
    page.wait(lambda: "GET /cells" in page.routes())
    own.inc(100)
    server.record("/cells", 8)
    page.poll()
    assert page.routes() == ["GET /cells"]
    page.click("tr[data-route='GET /cells'] button")
    assert page.details()["Requests"] == "8"


def test_the_names_are_those_of_the_name_sets(driver):
    """The page's own table of names and labels says what everything else goes by."""
    script = (ROOT / "hr_prometheus" / "status" / "static" / "status.js").read_text()
    table = re.search(r"const NAME_SETS = (\{.*?\n  \});", script, re.DOTALL)[1]
    kinds = {
        "requests": (REQUEST_COUNT, "_total"), "buckets": (REQUEST_LATENCY, "_bucket"), "latency": (REQUEST_LATENCY, "_sum"),
        "progress": (REQUESTS_IN_PROGRESS, ""), "received": (REQUEST_SIZE, "_sum"), "sent": (RESPONSE_SIZE, "_sum"),
        "loop": (REQUEST_LOOP_TIME, "_total"),
    }  # fmt: skip
    expected = {}
    for name, names in NAME_SETS.items():
        exports = {kind: exports_of(metric, Naming(sets=(name,))) for kind, (metric, _) in kinds.items()}
        samples = {
            kind: export.name + kinds[kind][1]
            for kind, (*each,) in exports.items()
            for export in each
            if export.names is names
        }
        if not exports["requests"]:
            samples["requests"] = f"{names.families[REQUEST_LATENCY]}_count"
        labels = {label: names.labels.get(label, label) for label in REQUEST_COUNT.labels}
        expected[name] = {"labels": labels, "samples": samples}
    assert driver.execute_script(f"return {table}") == expected
    assert re.search(r'LATENCY_HELP =\s+"(.*)";', script)[1] == REQUEST_LATENCY.help
    assert driver.execute_script(f"return Object.keys({table})") == list(NAME_SETS)


@pytest.mark.parametrize(
    ("before", "after"),
    [(["seed"], ["http"]), (["seed", "http"], ["http"]), (["otel"], ["seed"]), (["http"], ["otel"])],
)
def test_a_restart_with_other_names(page, server, before, after):
    """The page goes on with them, from the first request on."""
    server.use(CollectorRegistry(), names=before)
    show_starts(server.registry, {"": 1000})
    server.record("/", 3)
    page.open()
    server.record("/", 5)
    page.poll()
    server.use(CollectorRegistry(), names=after)
    show_starts(server.registry, {"": 2000})
    page.poll()
    server.record("/", 2)
    server.record("/", 4, status=500)
    page.poll()
    page.click("#table .route")
    assert (page.details()["Requests"], page.details()["5xx"]) == ("11", "4 (36 %)")


SHORT, LONG = (0.1, 1.0, 10.0), (1.0, 60.0, 600.0)
BOUNDS = {"*": SHORT, "report": LONG}
QUICK, SLOW = [0.05] * 9 + [0.5] * 9, [0.5] * 2 + [30.0] * 10


def test_buckets_of_a_route(page, server):
    """Its percentiles are of its own bounds, those of all routes of the bounds that all have."""
    server.use(CollectorRegistry(), buckets=BOUNDS, latency_by_status=True)
    server.record("/quick")
    page.open()
    for each in QUICK:
        server.record("/quick", seconds=each)
    page.poll()
    assert page.tile_of_range("Latency, p50") == page.cell("GET /quick", "p50") == "100 ms"
    for number, each in enumerate(SLOW):
        server.record("/slow", seconds=each, status=(200, 503)[number % 2], route="report")
    page.poll()
    page.click("#pause")
    assert page.cell("GET /quick", "p95") == f"{quantile(0.95, QUICK, SHORT) * 1000:.0f} ms"
    assert page.cell("GET /slow", "p95") == f"{quantile(0.95, SLOW, LONG):.1f} s"
    p50, p95 = (f"p{q * 100:.0f} {quantile(q, SLOW, LONG):.1f} s" for q in (0.5, 0.95))
    assert page.text("#attention .slow .value") == f"{p95} {p50}"
    expected = f"{quantile(0.5, QUICK + SLOW, (1.0,)) * 1000:.0f} ms"
    assert page.tile_of_range("Latency, p50") == page.tile("Latency, p50").replace("ms", " ms") == expected
    assert page.tile_of_range("Latency, p95") == "> 1 s"
    assert "p95\n> 1 s" in page.text("#charts")
    page.click("tr[data-route='GET /slow'] button")
    assert page.details()["p99"] == f"{quantile(0.99, SLOW, LONG):.1f} s"


def test_buckets_without_a_common_bound(page, server):
    """Of all routes together there is no percentile then, but of each."""
    server.use(CollectorRegistry(), buckets={"*": (0.1, 1.0), "report": (60.0,)})
    server.record("/quick")
    server.record("/slow", route="report")
    page.open()
    server.record("/quick", 20)
    server.record("/slow", 20, seconds=2, route="report")
    page.poll()
    page.click("#pause")
    assert (page.cell("GET /quick", "p50"), page.cell("GET /slow", "p50")) == ("50 ms", "30.0 s")
    for tile in (page.tile, page.tile_of_range):
        assert [tile(f"Latency, {name}") for name in ("p50", "p95", "p99")] == [NO_NUMBER] * 3
    assert page.texts("#charts .card:nth-child(2) .legend b") == [NO_NUMBER] * 3
    latencies, heatmap = page.coloured(
        "#charts .card:nth-child(2) .plot canvas, #charts .card:nth-child(3) .plot canvas"
    )
    assert latencies[0] is heatmap[0] is None  # nothing begins in them


def test_a_restart_with_other_buckets(page, server):
    """Percentiles are of the new ones from then on. What was counted before stays."""
    server.use(CollectorRegistry(), buckets=SHORT)
    show_starts(server.registry, {"": 1000})
    server.record("/", 3)
    server.record("/gone", 3)
    page.open()
    server.record("/", 20, seconds=0.5)
    server.record("/gone", 5)
    page.poll()
    assert page.cell("GET /", "p50") == "550 ms"
    server.use(CollectorRegistry(), buckets=LONG)
    show_starts(server.registry, {"": 2000})
    server.record("/", 20, seconds=30)
    page.poll()
    page.click("#pause")
    page.click("tr[data-route='GET /'] button")
    details = page.details()
    assert (details["Requests"], details["p50"], details["Mean latency"]) == ("40", "30.5 s", "30.0 s")
    assert page.cell("GET /gone", "p50") == "50 ms"
    assert page.tile_of_range("Latency, p95") == "> 1 s"  # which is the only bound of both
    page.click("#pause")
    page.skip(700)  # then the numbers of the route that is gone are so as well
    page.poll()
    server.record("/", 20, seconds=30)
    page.poll()
    assert page.tile_of_range("Latency, p50") == "30.5 s"


def test_series_of_a_route_with_different_bounds(page, server):
    """Their sum has the bounds of both, whichever comes and goes."""
    line = 'request_latency_bucket{{method="GET",path="/",instance="{}",le="{}"}} {}\n'
    head = 'request_count_total{{method="GET",path="/",status="200"}} {}\n'

    def answer(number: int, **series: dict[str, int]) -> None:
        lines = [line.format(name, le, count) for name, each in series.items() for le, count in each.items()]
        server.answer = "".join([head.format(number), *lines])

    answer(20, a={"0.1": 10, "1.0": 20, "+Inf": 20})
    page.open()
    answer(60, a={"0.1": 40, "1.0": 60, "+Inf": 60})
    page.poll()
    assert page.cell("GET /", "p50") == "67 ms"
    answer(100, a={"0.1": 40, "1.0": 60, "+Inf": 60}, b={"1.0": 40, "60.0": 40, "+Inf": 40})
    page.poll()
    assert page.cell("GET /", "p50") == "500 ms"
    answer(120, a={"0.1": 40, "1.0": 80, "+Inf": 80}, b={"1.0": 40, "60.0": 40, "+Inf": 40})
    page.poll()
    page.click("#table .route")
    assert (page.details()["Requests"], page.details()["p50"]) == ("100", "500 ms")


def test_recent_requests(page, server):
    """The latest that have failed or were slow, with what there is to know of each."""
    page.open()
    assert page.run("return document.querySelector('#recent').hidden")
    server.recent.append(recent("/<b>slow"))
    page.open()
    page.wait(lambda: page.texts("#recent tbody td"))
    cells = page.texts("#recent tbody td")
    assert cells[:1] + cells[2:] == [
        "GET /<b>slow", "503", "1.50 s", NO_NUMBER, "5 B", NO_NUMBER, "4bf92f3577b34da6"
    ]  # fmt: skip


def test_old_requests(page, server):
    """One of another day has its date. The title has the whole time."""
    server.recent += [recent("/new"), recent("/old", age=2 * 86400)]
    page.open()
    page.wait(lambda: page.texts("#recent tbody td"))
    new, old = page.texts("#recent td:nth-child(2)")
    assert re.fullmatch(r"\d\d:\d\d:\d\d", new)
    assert re.fullmatch(r"\d+ [A-Z]\w+, \d\d:\d\d:\d\d", old)
    title = page.run("return document.querySelector('#recent tr:nth-child(2) td:nth-child(2)').title")
    assert re.fullmatch(r"\d+ [A-Z]\w+ 20\d\d at \d\d:\d\d:\d\d \S+", title)


def test_recent_requests_on_a_telephone(page, server):
    """Different routes look different, and what matters needs no scroll."""
    paths = [f"/api/v1/customers/{{customer}}/orders/{{order}}/positions/{name}" for name in ("one", "two")]
    server.recent += [recent(path, age=2 * 86400) for path in paths]
    resize(page.driver, 380)
    page.open()
    page.wait(lambda: page.texts("#recent tbody td"))
    fits = "return [...document.querySelectorAll(arguments[0])].map((e) => [e.scrollWidth <= e.clientWidth, e.scrollHeight <= e.clientHeight])"
    assert page.run(fits, "#recent .scroll, #recent td:first-child, #recent .cut") == [[True, True]] * 5
    assert [text.split("/")[-1] for text in page.texts("#recent td:first-child")] == ["one", "two"]


def test_recent_requests_that_are_refused(page, server):
    """Their section says so. The metrics and their charts go on."""
    server.recent = None
    server.record("/")
    page.open()
    page.wait(lambda: page.text("#recent-count") == "No answer: it answers 503 Service Unavailable. Trying again.")
    assert page.text("#state") == "Live"
    server.record("/", 3)
    page.poll()
    page.click("#table .route")
    assert page.details()["Requests"] == "3"
    assert page.polls == len(server.polls)
    server.recent = [recent("/")]
    page.wait(lambda: page.texts("#recent tbody td"))
    assert page.text("#recent-count") == ""


def test_a_page_that_may_not_know_its_server(page, server):
    """It shows the metrics, under the name of the host."""
    script = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": REFUSE_CONFIG})
    page.open()
    page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    assert page.text("#state") == "Live"
    assert page.text("#target") == f"127.0.0.1:{server.port}"


def test_workers_and_the_event_loop(page, server):
    """Where they are measured, they are shown: in words, not in colours alone."""
    server.record("/block", 3)
    up = Gauge(WORKER_UP.name, "Up", ["worker"], registry=server.registry)
    up.labels("0").set(1)
    up.labels("1").set(0)
    restarts = Counter(WORKER_RESTARTS.name, "Restarts", ["worker", "reason"], registry=server.registry)
    restarts.labels("1", "signal").inc(2)
    restarts.labels("1", "reload").inc()
    lag = Histogram("asyncio_event_loop_lag_seconds", "Lag", buckets=(0.001, 0.01, 0.1), registry=server.registry)
    cpu = Counter("asyncio_event_loop_cpu_seconds", "CPU", registry=server.registry)
    Gauge("asyncio_event_loop_tasks", "Tasks", registry=server.registry).set(17)
    labels = ["method", "path"]
    blocked = Counter("asyncio_event_loop_blocked", "Blocked", labels, registry=server.registry)
    seconds = Counter("asyncio_event_loop_blocked_seconds", "Blocked", labels, registry=server.registry)
    held, first = server.records.request(("GET", "/block")).loop_time
    page.open()
    held[first] += 0.6
    blocked.labels("GET", "/block").inc(2)
    seconds.labels("GET", "/block").inc(0.5)
    blocked.labels("", "background").inc(1)
    seconds.labels("", "background").inc(0.25)
    lag.observe(0.02)
    cpu.inc(0.1)
    server.record("/block", 2)
    page.poll()
    assert page.texts("#processes tbody tr td:nth-child(-n+4)") == [
        "0",
        "up",
        "0",
        NO_NUMBER,
        "1",
        "down",
        "3",
        "2 killed by a signal, 1 replaced by a reload",
    ]
    assert "Worker 1 does not serve." in page.text("#notices")
    assert page.text("#loop h2") == "Event loop"
    assert page.texts("#loop tbody td") == ["GET /block", "2", "500 ms", "background", "1", "250 ms"]
    assert page.routes() == ["GET /block"]
    assert "17" in page.texts("#loop .legend b")
    assert page.cell("GET /block", "loop").endswith("%")
    page.click("#table .route")
    assert page.details()["Event loop"].startswith("300 ms a request")


def test_outgoing_calls(page, server):
    """The slowest host that the application calls comes first; those that are not measured have no section."""
    page.open()
    assert page.run("return document.querySelector('#outgoing').hidden")
    store = client_store(server.registry)
    calls = [CallRecord(store, client, "GET", host, extra) for client, host, extra in (
        ("default", "fast.example", ()), ("payments", "slow.example", ("path", "/a")), ("payments", "slow.example", ()),
    )]  # fmt: skip
    server.record("/", 1)
    page.poll()
    for record, seconds in zip(calls, (0.02, 2.0, 2.0), strict=True):
        for _ in range(10):
            record.begin()
            record.end("200", None, seconds, 10)
    calls[1].begin()
    for status, reason in (("503", None), ("error", "timeout"), ("200", "cut"), ("503", "cut"), ("200", "cancelled")):
        calls[0].begin()
        calls[0].end(status, reason, 0.02, None)
    calls[0].begin()
    page.poll()
    cells = page.texts("#outgoing tbody td")
    assert [cells[index] for index in (0, 2, 3, 6)] == ["payments slow.example", "0", "1.75 s", "1"]
    assert [cells[index] for index in (7, 9, 13)] == ["fast.example", "27 %", "1"]
    assert cells[10].endswith(" ms")
