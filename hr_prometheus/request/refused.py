"""Requests that aiohttp answers before any middleware: malformed ones, and expectations that it cannot meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aiohttp.web import Response

from hr_prometheus.labels.methods import UNKNOWN
from hr_prometheus.labels.resources import MALFORMED
from hr_prometheus.request.records import RequestRecord
from hr_prometheus.request.split_record import SplitRecord

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest, Request, StreamResponse

    from hr_prometheus.request.recorder import Recorder


def record_malformed(recorder: Recorder, request: BaseRequest, response: StreamResponse, seconds: float) -> None:
    """Record a request that aiohttp's parser has refused, so that it has neither route nor method."""
    if recorder.records is not None and not recorder.labels.excludes(MALFORMED):
        labels = UNKNOWN, MALFORMED, *recorder.extra_labels.without_request(MALFORMED)
        _record(recorder.records.request(labels), request, response, seconds)


def record_unmet_expectation(recorder: Recorder, request: Request, response: StreamResponse, seconds: float) -> None:
    """Record a request whose expectation aiohttp has refused (RFC 9110, 10.1.1)."""
    if isinstance(record := recorder.record_of(request), RequestRecord | SplitRecord):
        _record(record, request, response, seconds)


class _Refused(NamedTuple):
    """A request that has no exchange."""

    request: BaseRequest


def _record(
    record: RequestRecord | SplitRecord, request: BaseRequest, response: StreamResponse, seconds: float
) -> None:
    body = response.body if isinstance(response, Response) else None
    record.begin(_Refused(request))
    record.finish(str(response.status), seconds, _Refused(request))
    record.measure(seconds, len(body) if isinstance(body, bytes) else 0, 0)
