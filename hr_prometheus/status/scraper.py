"""One URL, scraped again and again for what the table of routes needs."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hr_prometheus.access.certificates import Pem, load_chain
from hr_prometheus.access.token import read_token
from hr_prometheus.errors import ScrapeError, SettingError
from hr_prometheus.quotes import quote_path
from hr_prometheus.status.route_counters import BUCKETS, find_naming, is_exposition, read_routes, samples_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence
    from http.client import HTTPMessage
    from typing import IO

    from hr_prometheus.names import Naming
    from hr_prometheus.status.route_counters import Route, RouteCounters

#: Seconds after which a scrape is given up, as by Prometheus.
TIMEOUT = 10.0
_LONGEST_BODY = 256 * 2**20
_CHUNK = 2**16
#: OpenSSL's codes for a certificate whose issuer is not among those that are trusted.
_UNTRUSTED = {18, 19, 20, 21}


@dataclass(frozen=True)
class RouteScrape:
    """The counters of each route, at a moment of :func:`time.perf_counter`."""

    routes: Mapping[Route, RouteCounters]
    moment: float


class Scraper:
    """Scrapes *url*. Once it knows the names of the metrics, it asks only for the samples that it needs, if the server can select.

    *authorization* is sent to its server alone. *ca_file* has the certificates to trust instead of the system's, and *cert_file*
    that of this client, with its key there or in *key_file*. One that is no such file is a
    :exc:`~hr_prometheus.errors.SettingError`, a :exc:`~hr_prometheus.errors.ServingError` or a
    :exc:`~hr_prometheus.errors.ScrapeError`.
    """

    def __init__(
        self,
        url: str,
        *,
        authorization: str = "",
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
    ) -> None:
        self.url = url
        self._authorization = authorization
        self._naming: Naming | None = None
        self._can_select = True
        self._opener = urllib.request.OpenerDirector()
        for handler in (  # without a proxy, as Prometheus scrapes, and without the files and FTP of a redirection
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=_context_of(ca_file, cert_file, key_file)),
            _RedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.UnknownHandler(),
        ):
            self._opener.add_handler(handler)

    def scrape(self) -> RouteScrape:
        """Return the counters of each route; none if there are metrics, but not of requests.

        Raises :exc:`~hr_prometheus.errors.ScrapeError` if nothing answers, or the answer is no metrics.
        """
        if self._naming is not None and self._can_select:
            selected = self._scrape_selected(self._naming)
            if selected is not None and _has_latencies(selected):
                return selected
        text, moment = self._get(())
        if not is_exposition(text):
            raise ScrapeError(f'"{self.url}" does not answer with metrics. Is it the URL of the metrics?')
        naming = find_naming(text)
        scrape = RouteScrape({} if naming is None else self._read(text, naming), moment)
        if self._naming is not None and scrape.routes:  # which a selection should have had
            self._can_select = self._naming != naming
        self._naming = naming
        return scrape

    def _scrape_selected(self, naming: Naming) -> RouteScrape | None:
        """Return a scrape of chosen samples, or None if the server refuses to select them."""
        try:
            text, moment = self._get([*samples_of(naming)])
        except _RefusedError:
            return None
        return RouteScrape(self._read(text, naming), moment)

    def _read(self, text: str, naming: Naming) -> Mapping[Route, RouteCounters]:
        try:
            return read_routes(text, naming)
        except ValueError as error:
            raise ScrapeError(f'"{self.url}" answers with metrics that cannot be read: {error}.') from error

    def _get(self, names: Sequence[str]) -> tuple[str, float]:
        """Return the body, and when its first bytes came."""
        query = urllib.parse.urlencode([("name[]", name) for name in names])
        url = f"{self.url}{'&' if '?' in self.url else '?'}{query}" if names else self.url
        request = urllib.request.Request(url, headers={"Accept": "text/plain;version=0.0.4"})  # noqa: S310  # read_address
        if self._authorization:
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            with self._opener.open(request, timeout=TIMEOUT) as response:
                moment = time.perf_counter()
                return self._read_body(response).decode(errors="replace"), moment
        except urllib.error.HTTPError as error:
            with error:
                kind = _RefusedError if 400 <= error.code < 500 else ScrapeError
                raise kind(f'"{self.url}" answers with {error.code} {error.reason}, instead of metrics.') from error
        except urllib.error.URLError as error:
            if problem := getattr(error.reason, "verify_message", None):
                is_untrusted = getattr(error.reason, "verify_code", None) in _UNTRUSTED
                advice = " Trust its issuer with --ca-file." * is_untrusted
                raise ScrapeError(f'"{self.url}" has a certificate that is refused: {problem}.{advice}') from error
            reason = getattr(error.reason, "strerror", None) or error.reason
            raise ScrapeError(f'"{self.url}" does not answer: {reason}.') from error
        except http.client.HTTPException as error:
            if self.url.startswith("https:"):
                raise ScrapeError(
                    f'"{self.url}" does not answer as a server of HTTP does. '
                    "Give a client's certificate with --cert-file, if it requires one."
                ) from error
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


def _has_latencies(scrape: RouteScrape) -> bool:
    """Whether its names are those of the server: what a name set has no name for is called the same in another."""
    return any(kind == BUCKETS for counted in scrape.routes.values() for kind, _key in counted.counters)


class _RedirectHandler(urllib.request.HTTPRedirectHandler):
    """Follows redirections. Only to the same server does it send the password again."""

    def redirect_request(  # noqa: PLR0917  # as urllib has it
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        again = super().redirect_request(req, fp, code, msg, headers, newurl)
        authorization = req.get_header("Authorization")
        if again is not None and authorization and (again.type, again.host) == (req.type, req.host):
            again.add_unredirected_header("Authorization", authorization)
        return again


def bearer_of(token_file: str) -> str:
    """Return the authorization by the token in a file. Raises what :func:`~hr_prometheus.access.token.read_token` raises."""
    return f"Bearer {read_token(token_file, 'token_file', _read_once).decode()}"


def read_password(password_file: str) -> str:
    """Return the password in a file, without the end of its line.

    Raises :exc:`~hr_prometheus.errors.SettingError` for what is none, and :exc:`~hr_prometheus.errors.ScrapeError` for a file
    that cannot be read.
    """
    subject = f"--password-file {quote_path(password_file)}"
    try:
        password = _read_once(password_file).decode().rstrip("\r\n")
    except OSError as error:
        raise ScrapeError(f"{subject}: {error.strerror}. Expected a file with a password.") from error
    except UnicodeDecodeError:
        raise SettingError("password_file", subject, " is not text in UTF-8. Expected a password.") from None
    if not password or not password.isprintable():
        raise SettingError(
            "password_file", subject, f" {'has more than' if password else 'is empty. Expected'} a password."
        )
    return password


def _read_once(path: str) -> bytes:
    """Return the bytes of a file, which may be a pipe."""
    with open(path, "rb") as file:
        return file.read()


def _context_of(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext | None:
    """Return the context for these files; ``None``, the default one, without any."""
    if ca_file is cert_file is None:
        return None
    import ssl  # noqa: PLC0415  # a Python may be built without it

    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        problem = " has no certificate. Expected one or more in PEM format."
        raise SettingError("ca_file", f"--ca-file {quote_path(str(ca_file))}", problem) from error
    except OSError as error:
        quoted = quote_path(str(ca_file))
        raise ScrapeError(f"--ca-file {quoted}: {error.strerror}. Expected certificates in PEM format.") from error
    if cert_file is not None:
        key = None if key_file is None else Pem.of_path("key_file", key_file)
        load_chain(context, Pem.of_path("cert_file", cert_file), key)
    return context


class _RefusedError(ScrapeError):
    """The server understands the request, and refuses it."""
