"""The label of a status."""

from __future__ import annotations


def status_label(status: str) -> str:
    """Return the label of a status, which may come from a client by way of a handler, or from any server."""
    return status if len(status) == 3 and status.isdecimal() and "100" <= status <= "599" else "other"
