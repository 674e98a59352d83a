"""The status page where an answer is missing, late or wrong, or the counters begin anew."""

from __future__ import annotations

import time

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from status_page import NO_NUMBER, USER, Page, driver, page, recent, server, shared_server, show_starts  # noqa: F401  # fixtures

from hr_prometheus.metrics import WORKER_RESTARTS

#: What says that the tab is hidden: a headless browser shows all of its tabs.
HIDE = """
Object.defineProperty(document, "hidden", { configurable: true, get: () => arguments[0] });
document.dispatchEvent(new Event("visibilitychange"));
"""
#: Refuses what the page has to know of its server.
REFUSE_CONFIG = """
const ask = window.fetch;
window.fetch = (url, ...more) => (url.includes("config.json") ? Promise.resolve(new Response("", { status: 403 })) : ask(url, ...more));
"""


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
    assert len(server.polls) > asked
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
    page.wait(lambda: page.polls == len(server.polls))
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
