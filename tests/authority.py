"""A certificate authority for tests, made by openssl."""

from __future__ import annotations

import ssl
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Authority:
    """Issues certificates of a *name* into a directory, for this machine or for clients."""

    def __init__(self, openssl: str, directory: Path, name: str = "ca") -> None:
        self._openssl, self.directory, self._name = openssl, directory, name
        self.path = directory / f"{name}.pem"
        usage = "keyUsage=critical,keyCertSign,cRLSign"  # which clients ask for with Python 3.13
        self._run("-subj", f"/CN={name}", "-addext", usage, "-keyout", f"{name}-key.pem", "-out", f"{name}.pem")

    def issue(self, name: str, *alternative_names: str) -> tuple[str, str]:
        """Return the paths of a certificate and its key."""
        names = ",".join(alternative_names or ["IP:127.0.0.1", "DNS:localhost"])
        self._run(
            "-CA", f"{self._name}.pem", "-CAkey", f"{self._name}-key.pem", "-subj", f"/CN={name}",
            "-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE",
            "-keyout", f"{name}-key.pem", "-out", f"{name}.pem",
        )  # fmt: skip
        return str(self.directory / f"{name}.pem"), str(self.directory / f"{name}-key.pem")

    def context(self, *client: str) -> ssl.SSLContext:
        """Return the context of a client that trusts it, and may have a certificate and a key."""
        context = ssl.create_default_context(cafile=str(self.path))
        if client:
            context.load_cert_chain(*client)
        return context

    def _run(self, *arguments: str) -> None:
        subprocess.run(
            [self._openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "2", *arguments],
            cwd=self.directory, check=True, capture_output=True,
        )  # fmt: skip
