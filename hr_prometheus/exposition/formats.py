"""The formats of a scrape, and which of them, with gzip or without, a scraper's headers ask for.

The bodies are prometheus_client's, except for protocol buffers, which it does not have. The headers are read here, because
prometheus_client 0.26 answers a version that is not a number with an exception, labels OpenMetrics 1.0.0 as 2.0.0 when asked
for that, and ignores quality values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from hr_prometheus.exposition import protobuf
from hr_prometheus.exposition.render import pieces
from hr_prometheus.store.families import with_created

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from typing import Protocol

    from prometheus_client.core import Metric as Family

    class Collectable(Protocol):
        """A registry, or a part of one."""

        def collect(self) -> Iterable[Family]:
            """Yield the families."""


_ESCAPINGS: Final = frozenset({"allow-utf-8", "underscores", "dots", "values"})


@dataclass(frozen=True)
class Format:
    """One way to write metrics, with its name in ``Content-Type``."""

    is_openmetrics: bool = False
    version: str = "0.0.4"
    escaping: str = ""

    @property
    def content_type(self) -> str:
        """The value of the header ``Content-Type``."""
        media_type = "application/openmetrics-text" if self.is_openmetrics else "text/plain"
        escaping = f"; escaping={self.escaping}" if self.escaping else ""
        return f"{media_type}; version={self.version}; charset=utf-8{escaping}"

    def pieces(self, registry: Collectable) -> Iterator[bytes]:
        """Yield all samples of the registry in this format, in pieces of about a millisecond each.

        That is without the time in which a collector gives out a family.
        """
        created = self.is_openmetrics and _created_is_on()
        token = with_created.set(created)
        try:
            yield from pieces(
                registry.collect(),
                self._generate,
                is_openmetrics=self.is_openmetrics,
                is_escaped=self.escaping in ("dots", "values"),
                with_created=created,
            )
        finally:
            with_created.reset(token)
        if self.is_openmetrics:
            yield _EOF

    def render(self, registry: Collectable) -> bytes:
        """Return all of the registry's samples in this format."""
        return b"".join(self.pieces(registry))

    def _generate(self, registry: Collectable) -> bytes:
        escaping = self.escaping or "underscores"
        if not self.is_openmetrics:
            return generate_text(registry, escaping)
        body: bytes = generate_openmetrics(registry, escaping)  # type: ignore[no-untyped-call]
        return body.removesuffix(_EOF)


@dataclass(frozen=True)
class ProtobufFormat(Format):
    """Messages ``io.prometheus.client.MetricFamily``, each after its length."""

    @property
    def content_type(self) -> str:
        """The value of the header ``Content-Type``."""
        escaping = f"; escaping={self.escaping}" if self.escaping else ""
        return f"{_PROTOBUF}; proto={_MESSAGE}; encoding=delimited{escaping}"

    def pieces(self, registry: Collectable) -> Iterator[bytes]:
        """Yield all samples of the registry, as :meth:`Format.pieces` does. Some pieces are empty."""
        created = _created_is_on()
        token = with_created.set(created)
        try:
            yield from protobuf.pieces(registry.collect(), self.escaping or "underscores", with_created=created)
        finally:
            with_created.reset(token)


_EOF: Final = b"# EOF\n"
_PROTOBUF: Final = "application/vnd.google.protobuf"
_MESSAGE: Final = "io.prometheus.client.MetricFamily"
TEXT = Format()
PROTOBUF = ProtobufFormat(version="", escaping="allow-utf-8")


def choose_format(accept: str, names: Collection[str] = ()) -> Format:
    """Return the format that an ``Accept`` header prefers: its highest quality value, then its first range.

    There are protocol buffers, OpenMetrics 1.0.0 and the text formats 1.0.0 and 0.0.4. Without a header, and for one that
    accepts none of them, it is the text format 0.0.4, as with every Prometheus client (RFC 9110, 12.4.1 allows it). A
    selection of samples by *names* is text: a message has the whole of a histogram.
    """
    best, best_quality = TEXT, 0.0
    for media_type, parameters in _ranges(accept):
        quality = _quality(parameters)
        offered = _offered(media_type, parameters)
        if offered is not None and quality > best_quality and not (names and isinstance(offered, ProtobufFormat)):
            best, best_quality = offered, quality
    return best


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an ``Accept-Encoding`` header allows gzip (RFC 9110, 12.5.3)."""
    qualities = {coding: _quality(parameters) for coding, parameters in _ranges(accept_encoding)}
    return qualities.get("gzip", qualities.get("x-gzip", qualities.get("*", 0.0))) > 0.0


def _offered(media_type: str, parameters: dict[str, str]) -> Format | None:
    version = parameters.get("version", "")
    escaping = parameters.get("escaping", "underscores")
    if escaping not in _ESCAPINGS:
        escaping = "underscores"
    if media_type == _PROTOBUF and (parameters.get("proto"), parameters.get("encoding")) == (_MESSAGE, "delimited"):
        return ProtobufFormat(version="", escaping=escaping if "escaping" in parameters else "")
    if media_type in ("application/openmetrics-text", "application/*") and version in ("", "1.0.0"):
        return Format(is_openmetrics=True, version="1.0.0", escaping=escaping if version else "")
    if media_type == "text/plain" and version == "1.0.0":
        return Format(version="1.0.0", escaping=escaping)
    if media_type in ("text/plain", "text/*", "*/*") and version in ("", "0.0.4"):
        return TEXT
    return None


def _ranges(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the members of a list such as ``Accept``, each with its parameters."""
    for member in header.split(","):
        value, *rest = (part.strip() for part in member.split(";"))
        pairs = (part.partition("=") for part in rest)
        yield value.lower(), {name.strip().lower(): text.strip().strip('"') for name, _, text in pairs}


def _quality(parameters: dict[str, str]) -> float:
    """Return the weight of a member; it is 0 unless it is a number from 0 to 1."""
    try:
        quality = float(parameters.get("q", "1"))
    except ValueError:
        return 0.0
    return quality if 0.0 <= quality <= 1.0 else 0.0


def _created_is_on() -> bool:
    """Whether prometheus_client exports ``_created`` samples at present, which only its own metrics show."""
    probe = Counter("probe", "probe", registry=CollectorRegistry())
    return any(sample.name == "probe_created" for family in probe.collect() for sample in family.samples)
