"""Files without a name, which processes share by their descriptors: no other process can remove or truncate them."""

from __future__ import annotations

import os
import tempfile


def create_shared_file(purpose: str) -> int:
    """Return the descriptor of a new, empty file, in memory where the system has that. *purpose* is for lists of open files."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(f"hr-prometheus-{purpose}")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
