"""One URL, scraped again and again for what the table of routes needs."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hr_prometheus.errors import ConfigurationError, ScrapeError
from hr_prometheus.status.route_counters import SAMPLE_NAMES, find_prefix, is_exposition, read_routes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hr_prometheus.status.route_counters import Route, RouteCounters

#: Seconds after which a scrape is given up, as by Prometheus.
TIMEOUT = 10.0
_DEFAULT_PATH = "/metrics"
_DEFAULT_HOST = "127.0.0.1"
_LONGEST_BODY = 256 * 2**20
_CHUNK = 2**16


@dataclass(frozen=True)
class RouteScrape:
    """The counters of each route, at a moment of :func:`time.perf_counter`."""

    routes: Mapping[Route, RouteCounters]
    moment: float


def read_url(text: str) -> str:
    """Return the URL that *text* is short for: ``9100``, ``:9100``, ``host:9100``, or one of http or https.

    Without a path it is that of ``/metrics``. Raises :exc:`~hr_prometheus.errors.ConfigurationError`.
    """
    short = re.sub(r"^:?(?=\d+(?:/|$))", f"{_DEFAULT_HOST}:", text)
    try:
        parts = urllib.parse.urlsplit(short if "://" in short else f"http://{short}")
        is_right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and "@" not in parts.netloc
    except ValueError:  # a port that is no number, an address of IPv6 without its end
        is_right = False
    if not is_right or re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ConfigurationError(
            f'"{text}" is no URL of metrics. Expected one of http or https, without a user, or what is short for it: '
            '"host:9100", "9100".'
        )
    path = urllib.parse.quote(parts.path, safe="/%:@!$&'()*+,;=~") if parts.path.strip("/") else _DEFAULT_PATH
    netloc = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    return urllib.parse.urlunsplit((parts.scheme, netloc, path, parts.query, ""))


class Scraper:
    """Scrapes *url*. Once the metric prefix is known, it asks only for the samples that it needs, if the server can select."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._prefix: str | None = None
        self._can_select = True
        self._opener = urllib.request.OpenerDirector()
        for handler in (  # without a proxy, as Prometheus scrapes, and without the files and FTP of a redirection
            urllib.request.HTTPHandler,
            urllib.request.HTTPSHandler,
            urllib.request.HTTPRedirectHandler,
            urllib.request.HTTPErrorProcessor,
            urllib.request.HTTPDefaultErrorHandler,
            urllib.request.UnknownHandler,
        ):
            self._opener.add_handler(handler())

    def scrape(self) -> RouteScrape:
        """Return the counters of each route; none if there are metrics, but not of requests.

        Raises :exc:`~hr_prometheus.errors.ScrapeError` if nothing answers, or the answer is no metrics.
        """
        if self._prefix is not None and self._can_select:
            selected = self._scrape_selected(self._prefix)
            if selected is not None and selected.routes:
                return selected
        text, moment = self._get(())
        if not is_exposition(text):
            raise ScrapeError(f'"{self.url}" does not answer with metrics. Is it the URL of the metrics?')
        prefix = find_prefix(text)
        scrape = RouteScrape({} if prefix is None else self._read(text, prefix), moment)
        if self._prefix is not None and scrape.routes:  # which a selection should have had
            self._can_select = self._prefix != prefix
        self._prefix = prefix
        return scrape

    def _scrape_selected(self, prefix: str) -> RouteScrape | None:
        """Return a scrape of chosen samples, or None if the server refuses to select them."""
        try:
            text, moment = self._get([prefix + name for name in SAMPLE_NAMES])
        except _RefusedError:
            return None
        return RouteScrape(self._read(text, prefix), moment)

    def _read(self, text: str, prefix: str) -> Mapping[Route, RouteCounters]:
        try:
            return read_routes(text, prefix)
        except ValueError as error:
            raise ScrapeError(f'"{self.url}" answers with metrics that cannot be read: {error}.') from error

    def _get(self, names: Sequence[str]) -> tuple[str, float]:
        """Return the body, and when its first bytes came."""
        query = urllib.parse.urlencode([("name[]", name) for name in names])
        url = f"{self.url}{'&' if '?' in self.url else '?'}{query}" if names else self.url
        request = urllib.request.Request(url, headers={"Accept": "text/plain;version=0.0.4"})  # noqa: S310  # read_url
        try:
            with self._opener.open(request, timeout=TIMEOUT) as response:
                moment = time.perf_counter()
                return self._read_body(response).decode(errors="replace"), moment
        except urllib.error.HTTPError as error:
            with error:
                kind = _RefusedError if 400 <= error.code < 500 else ScrapeError
                raise kind(f'"{self.url}" answers with {error.code} {error.reason}, instead of metrics.') from error
        except urllib.error.URLError as error:
            reason = getattr(error.reason, "strerror", None) or error.reason
            raise ScrapeError(f'"{self.url}" does not answer: {reason}.') from error
        except http.client.HTTPException as error:
            raise ScrapeError(f'"{self.url}" does not answer as a server of HTTP does. Is it "https"?') from error
        except OSError as error:
            raise ScrapeError(f'"{self.url}" does not answer: {error.strerror or error}.') from error

    def _read_body(self, response: http.client.HTTPResponse) -> bytes:
        """Return the body, unless it goes on and on, as that of an event stream."""
        body = bytearray()
        end = time.monotonic() + TIMEOUT
        while chunk := response.read1(_CHUNK):
            body += chunk
            if time.monotonic() > end or len(body) > _LONGEST_BODY:
                raise ScrapeError(f'"{self.url}" answers without an end. Is it the URL of the metrics?')
        return bytes(body)


class _RefusedError(ScrapeError):
    """The server understands the request, and refuses it."""
