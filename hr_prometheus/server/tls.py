"""The TLS context of a certificate and its key, or the sentence that says what is wrong with the files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hr_prometheus.errors import ServingError, SettingError

if TYPE_CHECKING:
    import ssl

    from hr_prometheus.settings import Settings

#: OpenSSL's reasons for a key of another certificate; the last is for a key of another kind.
_MISMATCHES = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the context for the certificate in *settings*, or ``None`` without one.

    Raises :exc:`~hr_prometheus.errors.SettingError` for a file that is not what it should be, and
    :exc:`~hr_prometheus.errors.ServingError` for one that cannot be read.
    """
    if settings.certfile is None:
        return None
    import ssl  # noqa: PLC0415  # a Python may be built without it

    certificate = _read("certfile", settings.certfile)
    key = certificate if settings.keyfile is None else _read("keyfile", settings.keyfile)
    is_encrypted = False

    def passphrase() -> str:
        """Keep OpenSSL from asking on the terminal."""
        nonlocal is_encrypted
        is_encrypted = True
        return ""

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.certfile, settings.keyfile, password=passphrase)
    except ssl.SSLError as error:
        raise _error(settings, key, error.reason or "", is_encrypted=is_encrypted) from error
    return context


def _error(settings: Settings, key: bytes, reason: str, *, is_encrypted: bool) -> SettingError:
    setting = "certfile" if settings.keyfile is None else "keyfile"
    if not _has_certificate(str(settings.certfile)):
        setting, problem = "certfile", " is no certificate. Expected a certificate chain in PEM format."
    elif is_encrypted:
        problem = ": the private key is encrypted. Expected one without a passphrase, as openssl pkey writes it."
    elif reason in _MISMATCHES:
        problem = f': the private key does not belong to the certificate in "{settings.certfile}". Give its own.'
    elif b"PRIVATE KEY-----" in key:
        problem = (
            f": the private key is refused{f' ({reason})' * bool(reason)}. Expected the certificate's, in PEM format."
        )
    elif settings.keyfile is None:
        problem = " has a certificate and no private key. Give the file of the key with --keyfile."
    else:
        problem = " has no private key. Expected the certificate's, in PEM format."
    return SettingError(setting, f'--{setting} "{getattr(settings, setting)}"', problem)


def _read(setting: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        expected = "a certificate chain" if setting == "certfile" else "a private key"
        raise ServingError(f'--{setting} "{path}": {error.strerror}. Expected {expected} in PEM format.') from error


def _has_certificate(path: str) -> bool:
    import ssl  # noqa: PLC0415  # as above

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True
