"""The command that shows the routes of a server as they are used."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import click

from hr_prometheus.commands import file_options, top_options
from hr_prometheus.commands.command import Command
from hr_prometheus.commands.parameters import Argument
from hr_prometheus.commands.streams import print_result
from hr_prometheus.errors import ConfigurationError, ScrapeError

if TYPE_CHECKING:
    from hr_prometheus.commands.screen import Screen
    from hr_prometheus.status.address import Address
    from hr_prometheus.status.rate_table import Line
    from hr_prometheus.status.rates import Comparison
    from hr_prometheus.status.scraper import RouteScrape, Scraper

#: What is left in the last line however narrow the terminal is.
_QUIT = "q quit"
#: The key, the name in ``--sort`` and the words in the last line.
_SORT_KEYS = (
    ("r", "rate", "rate"),
    ("e", "errors", "errors"),
    ("1", "p50", "p50"),
    ("2", "p95", "p95"),
    ("3", "p99", "p99"),
    ("n", "in-progress", "in progress"),
    ("p", "path", "path"),
)
_NO_REQUESTS = "Its server has had no request yet, or is not instrumented by hr-prometheus."


@click.command(cls=Command, short_help="Show the routes of a server as they are used, in a terminal.")
@click.argument("url", cls=Argument)
@top_options.interval
@top_options.sort
@top_options.once
@top_options.token_file
@top_options.password_file
@top_options.ca_file
@top_options.cert_file
@top_options.key_file
@file_options.files
def top(
    url: str,
    *,
    interval: float,
    sort: str,
    once: bool,
    token_file: str | None,
    password_file: str | None,
    ca_file: str | None,
    cert_file: str | None,
    key_file: str | None,
    **_origins: Any,
) -> None:
    """Show the routes of a server whose metrics are at URL, with what has happened between two scrapes.

    URL may be short: 9100 and host:9100 are http://127.0.0.1:9100/metrics and http://host:9100/metrics. user:password@ before
    the host is sent as basic authentication, and never shown. With --password-file it is user@ alone.

    \b
    REQ/S          requests that ended, per second
    5XX/S, 4XX/S   those with such a status; 4XX without 499
    499/S          those whose client left before their end
    P50, P95, P99  percentiles of their latencies
    NOW            requests in progress
    LOOP           how much of the time they held the loop
    OUT/S, IN/S    bytes of their bodies, per second

    The last two lines need `run --detail full`, and a wide terminal.

    In a terminal the keys of the last line sort the table. The keys q and Ctrl-C end it with exit code 0, as SIGTERM does. Ctrl-Z
    suspends it. A server that does not answer any more is asked again.

    With --once, or where standard input or output is not a terminal, it scrapes twice, prints the table, and ends.

    Exit codes: as of `run`, and 1 if URL gives no metrics.
    """
    from hr_prometheus.commands.screen import can_draw
    from hr_prometheus.status.address import read_address
    from hr_prometheus.status.scraper import Scraper

    address = read_address(url)
    if key_file is not None and cert_file is None:
        raise ConfigurationError("--key-file was given without --cert-file. The key belongs to a certificate.")
    scraper = Scraper(
        address.url,
        authorization=_authorization_of(address, token_file, password_file),
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
    )
    first = scraper.scrape()
    if once or not can_draw():
        _print_once(scraper, first, sort, interval)
    else:
        _watch(scraper, first, sort, interval)


def _authorization_of(address: Address, token_file: str | None, password_file: str | None) -> str:
    """Return the header of the token or the password. Raises ConfigurationError if there are two."""
    from hr_prometheus.status.scraper import bearer_of, read_password

    if token_file is not None:
        if password_file is not None:
            raise ConfigurationError("--token-file was given with --password-file. Leave one of them out.")
        if address.authorization:
            raise ConfigurationError("--token-file was given with a password in the URL. Leave one of them out.")
        return bearer_of(token_file)
    if password_file is not None:
        if address.password is not None:
            raise ConfigurationError("--password-file was given with a password in the URL. Leave one of them out.")
        if not address.user:
            raise ConfigurationError(
                "--password-file was given without a user. Expected one before the host, as in https://me@host:9100."
            )
        address = replace(address, password=read_password(password_file))
    return address.authorization


def _print_once(scraper: Scraper, first: RouteScrape, sort: str, interval: float) -> None:
    from hr_prometheus.commands.streams import output_width
    from hr_prometheus.status.rate_table import render_table
    from hr_prometheus.status.rates import compare

    time.sleep(interval)
    second = scraper.scrape()
    if not second.routes:
        raise ScrapeError(f'"{scraper.url}" has no metrics of requests. {_NO_REQUESTS}')
    comparison = compare(first.routes, second.routes, seconds=second.moment - first.moment)
    lines = render_table(comparison, sort, width=output_width())
    print_result("\n".join("".join(text for text, _ in line).rstrip() for line in lines))


def _watch(scraper: Scraper, first: RouteScrape, sort: str, interval: float) -> None:
    from hr_prometheus.commands.screen import open_screen

    page = _Page(scraper.url, first, sort, interval)
    results: SimpleQueue[RouteScrape | Exception] = SimpleQueue()
    with open_screen() as screen:
        threading.Thread(target=_poll, args=(scraper, interval, results, screen), daemon=True).start()
        page.draw_on(screen)
        while (keys := screen.read_keys()) is not None:
            if "q" in keys.lower():
                return
            page.sort_by(keys)
            while not results.empty():
                page.add(results.get())
            page.draw_on(screen)


def _poll(scraper: Scraper, interval: float, results: SimpleQueue[RouteScrape | Exception], screen: Screen) -> None:
    """Scrape for ever, in a thread: a server that takes its time delays no key."""
    while True:
        time.sleep(interval)
        try:
            results.put(scraper.scrape())
        except Exception as error:  # noqa: BLE001  # the main thread raises it, when the terminal is restored
            results.put(error)
        screen.wake()


class _Page:
    """What the screen shows: the latest comparison of two scrapes, or why there is none."""

    def __init__(self, url: str, first: RouteScrape, sort: str, interval: float) -> None:
        self._url, self._sort, self._interval = url, sort, interval
        self._latest = first
        self._comparison: Comparison | None = None
        self._message = "" if first.routes else _NO_REQUESTS
        self._is_failure = False

    def sort_by(self, keys: str) -> None:
        """Sort by the last of these keys that is one of a column."""
        names = {key: name for key, name, _ in _SORT_KEYS}
        for key in keys.lower():
            self._sort = names.get(key, self._sort)

    def add(self, result: RouteScrape | Exception) -> None:
        """Compare a scrape with the one before it. Raise an exception that no scrape should have."""
        from hr_prometheus.status.rates import compare

        self._is_failure = isinstance(result, ScrapeError)
        if isinstance(result, ScrapeError):
            self._message = str(result).replace(f'"{self._url}"', "It", 1) + " Trying again."
            return
        if isinstance(result, Exception):
            raise result
        earlier, self._latest = self._latest, result
        self._comparison = compare(earlier.routes, result.routes, seconds=result.moment - earlier.moment)
        self._message = "" if result.routes else _NO_REQUESTS
        if self._comparison.is_reset:
            self._message = "The counters started again from 0: the server was started again."

    def draw_on(self, screen: Screen) -> None:
        """Draw it, as wide and as high as the screen is now."""
        from hr_prometheus.status.rate_table import (
            ERROR,
            QUIET,
            SORTED,
            TITLE,
            cut_text,
            escape_unprintable,
            render_table,
        )

        width, height = screen.size()
        count = len(self._latest.routes)
        routes = f"{count:,} route{'s' * (count != 1)}, every {self._interval:g} s"
        url = cut_text(escape_unprintable(self._url), max(width - len(routes) - 2, 0))
        message = cut_text(escape_unprintable(self._message), width)
        head: list[Line] = [[(url, TITLE), (f"  {routes}", QUIET)], [(message, ERROR if self._is_failure else "")]]
        foot: Line = []
        left = width - len(_QUIT)
        for key, name, words in _SORT_KEYS:
            text = f"{key} {words}"
            left -= len(text) + 2
            if left >= 0:
                foot += [(text, SORTED if name == self._sort else QUIET), ("  ", "")]
        foot.append((_QUIT, QUIET))
        room = max(height - len(head) - 1, 0)
        table: list[Line] = []
        if self._comparison is not None:
            table = render_table(self._comparison, self._sort, width=width, height=room)
        if self._is_failure:  # these are old numbers
            table = [[(text, QUIET) for text, _ in line] for line in table]
        table += [[] for _ in range(room - len(table))]
        screen.draw([*head, *table, foot][:height])
