"""Certificates and private keys in PEM format, or the sentence that says what is wrong with them."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from tempfile import NamedTemporaryFile
from typing import IO, TYPE_CHECKING

from hr_prometheus.access.files import read_file
from hr_prometheus.errors import ConfigurationError, ServingError, SettingError
from hr_prometheus.quotes import quote_path

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from hr_prometheus.settings import Settings

#: OpenSSL's reasons for a key of another certificate; the last is for a key of another kind.
_MISMATCHES = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


@dataclass(frozen=True)
class Pem:
    """PEM text: that of the file at *path*, or else *text*. Errors begin with *subject*; *setting* is that of an option."""

    subject: str
    path: str = ""
    text: str = field(default="", repr=False)
    setting: str = ""

    @classmethod
    def of_option(cls, settings: Settings, setting: str) -> Pem:
        """Return that of an option whose value is a path."""
        return cls.of_path(setting, getattr(settings, setting))

    @classmethod
    def of_path(cls, setting: str, path: str) -> Pem:
        """Return that of the *path* that a *setting* has."""
        return cls(f"--{setting.replace('_', '-')} {quote_path(path)}", path, setting=setting)

    def error(self, problem: str) -> ConfigurationError:
        """Return the error for what it is or is not."""
        if self.setting:
            return SettingError(self.setting, self.subject, problem)
        return ConfigurationError(self.subject + problem)

    def exists(self) -> bool:
        """Whether there is such text, or something at the path."""
        return not self.path or os.path.exists(self.path)

    def read(self, read: Callable[[str], bytes], what: str) -> bytes:
        """Return its bytes. Raises :exc:`~hr_prometheus.errors.ServingError` if it cannot be read.

        What cannot be a path at all is a :exc:`~hr_prometheus.errors.ConfigurationError`.
        """
        try:
            return read(self.path) if self.path else self.text.encode()
        except OSError as error:
            raise ServingError(f"{self.subject}: {error.strerror}. Expected {what} in PEM format.") from error
        except ValueError as error:
            raise self.error(f" cannot be read. Expected {what} in PEM format.") from error

    @contextmanager
    def as_file(self) -> Iterator[str]:
        """Yield the path of a file with the text: OpenSSL's functions for keys take no other."""
        if self.path:
            yield self.path
            return
        with self._open_unnamed() as file:
            file.write(self.text.encode())
            file.flush()
            yield file.name if isinstance(file.name, str) else f"/proc/self/fd/{file.fileno()}"

    def _open_unnamed(self) -> IO[bytes]:
        """Open a file in memory, or a temporary one where there is no such thing."""
        if sys.platform == "linux":
            return open(os.memfd_create("hr-prometheus"), "wb")
        try:
            return NamedTemporaryFile(prefix="hr-prometheus-", suffix=".pem")
        except OSError as error:
            problem = "cannot be written to a temporary file for OpenSSL. Give TMPDIR a directory that can be written."
            raise ServingError(f"{self.subject} {problem}") from error


def load_chain(
    context: ssl.SSLContext, certificate: Pem, key: Pem | None, read: Callable[[str], bytes] = read_file
) -> None:
    """Load a certificate chain, and its private key if that has a file of its own, into *context*.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` for a file that is not what it should be, and
    :exc:`~hr_prometheus.errors.ServingError` for one that cannot be read.
    """
    import ssl  # noqa: PLC0415  # a Python may be built without it

    text = certificate.read(read, "a certificate chain")
    key_text = text if key is None else key.read(read, "a private key")
    is_encrypted = False

    def passphrase() -> str:
        """Keep OpenSSL from asking on the terminal."""
        nonlocal is_encrypted
        is_encrypted = True
        return ""

    with certificate.as_file() as path, (key or certificate).as_file() as key_path:
        try:
            context.load_cert_chain(path, key_path, password=passphrase)
        except ssl.SSLError as error:
            raise _error(certificate, key, key_text, error.reason or "", is_encrypted=is_encrypted) from error
        except OSError as error:  # the file has just gone, or there is no /proc
            subject = (key or certificate).subject
            raise ServingError(f"{subject}: {error.strerror}. Expected a file that OpenSSL can read.") from error


def _error(
    certificate: Pem, key: Pem | None, key_text: bytes, reason: str, *, is_encrypted: bool
) -> ConfigurationError:
    at = key or certificate
    if not _has_certificate(certificate):
        at, problem = certificate, " is not a certificate. Expected a certificate chain in PEM format."
    elif is_encrypted:
        problem = ": the private key is encrypted. Expected one without a passphrase, as openssl pkey writes it."
    elif reason in _MISMATCHES:
        place = f" in {quote_path(certificate.path)}" if certificate.path else ""
        problem = f": the private key does not belong to the certificate{place}. Give its own."
    elif b"PRIVATE KEY-----" in key_text:
        problem = (
            f": the private key is refused{f' ({reason})' * bool(reason)}. Expected the certificate's, in PEM format."
        )
    elif key is None:
        option = certificate.setting.replace("cert", "key").replace("_", "-")
        problem = f" has a certificate and no private key. Give the file of the key with --{option}."
    else:
        problem = " has no private key. Expected the certificate's, in PEM format."
    return at.error(problem)


def _has_certificate(certificate: Pem) -> bool:
    import ssl  # noqa: PLC0415  # as above

    try:
        with certificate.as_file() as path:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True
