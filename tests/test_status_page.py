"""The status page in a real browser, over a registry whose numbers the tests know."""

from __future__ import annotations

import re
import shlex
import socket
from bisect import bisect_left
from itertools import pairwise

import bcrypt
import pytest
from conftest import samples, wait_for
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from selenium import webdriver
from status_page import NO_NUMBER, ROOT, USER, driver, page, recent, resize, server, shared_server, show_starts  # noqa: F401  # fixtures

from hr_prometheus.client.records import CallRecord
from hr_prometheus.metric import LATENCY_BUCKETS
from hr_prometheus.metrics import (
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
from hr_prometheus.store.store import client_store

#: Returns the colour of each class of statuses in shades of grey, from 0 to 255, as Rec. 601 has them.
GREYS = """
const style = getComputedStyle(document.documentElement);
return ["5xx", "499", "4xx", "3xx", "2xx"].map((name) => {
  const [red, green, blue] = style.getPropertyValue(`--class-${name}`).match(/\\w\\w/g).map((each) => parseInt(each, 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue;
});
"""
#: Uses the page between the answers to its first poll and its first numbers, and counts how often it can.
USE_EARLY = """
let isAnswered = false;
window.turns = 0;
const text = Response.prototype.text;
Response.prototype.text = async function () {
  const answer = await text.call(this);
  isAnswered ||= answer.includes('"target"'); // which it asks for when it has the answer of the metrics
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
    for number in range(2000):
        server.record(f"/route/{number:04}", 2)
    script = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": USE_EARLY})
    page.open()
    page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    assert page.run("return turns") > 1  # once before it draws
    assert page.text("#routes-count").startswith("2,000")
    server.record("/a/new/one", 3)
    server.record("/route/1210", 7, status=500)
    page.poll()
    assert page.cell("GET /route/1210", "5xx") == "100 %"
    assert page.text("#attention .failing .value") == "100 % 5xx 7 of 7"
    page.click("#table .route")
    assert page.details()["Requests"] == "7"


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
