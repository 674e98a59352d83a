"""An exemplar of a family of ours in OpenMetrics, and in protocol buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hr_prometheus.exposition import wire
from hr_prometheus.store.families import go_text

if TYPE_CHECKING:
    from prometheus_client.core import Exemplar

    from hr_prometheus.exposition.client_model import Names


def exemplar_text(exemplar: Exemplar) -> str:
    """Return what OpenMetrics has behind the number of a sample. The labels' values need no escapes."""
    labels = ",".join(f'{name}="{value}"' for name, value in sorted(exemplar.labels.items()))
    return f" # {{{labels}}} {go_text(exemplar.value)} {exemplar.timestamp}"


def bucket_message(count: float, bound: float, exemplar: Exemplar, names: Names) -> bytes:
    """Return a bucket with its cumulative count and an exemplar, as a field of a histogram."""
    return wire.message(3, wire.whole(1, int(count)) + wire.double(2, bound) + names.exemplar(3, exemplar))
