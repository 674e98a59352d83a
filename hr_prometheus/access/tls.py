"""TLS for the metrics port: its settings, and the context that follows them."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from hr_prometheus.access.certificates import load_chain

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from hr_prometheus.access.certificates import Pem

#: Versions of TLS by Go's names, the oldest first, with Python's.
VERSIONS = {"TLS10": "TLSv1", "TLS11": "TLSv1_1", "TLS12": "TLSv1_2", "TLS13": "TLSv1_3"}
#: Go's cipher suites by its names, with OpenSSL's. Those without are of TLS 1.3, and always on.
CIPHERS = {
    "TLS_AES_128_GCM_SHA256": "",
    "TLS_AES_256_GCM_SHA384": "",
    "TLS_CHACHA20_POLY1305_SHA256": "",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
#: The values of ``client_auth_type`` that verify a client's certificate.
VERIFIED = ("VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
NOT_VERIFIED = f" was given without a client_auth_type that verifies certificates. Expected {' or '.join(VERIFIED)}."
#: Those that require one of any authority, or of none, which Python's ssl cannot.
UNVERIFIABLE = ("RequireAnyClientCert", "RequireClientCert")
#: All of them. A certificate that is only requested decides nothing, so it is not requested.
CLIENT_AUTH_TYPES = ("NoClientCert", "RequestClientCert", *UNVERIFIABLE, *VERIFIED)


@dataclass(frozen=True)
class TlsSettings:
    """How the metrics port speaks TLS, in the words of a web configuration.

    *allowed_names* are alternative names. A client's certificate needs one of them, unless there are none.
    """

    certificate: Pem
    key: Pem | None
    client_ca: Pem | None = None
    client_auth_type: str = "NoClientCert"
    allowed_names: frozenset[str] = frozenset()
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    cipher_suites: tuple[str, ...] = ()
    prefers_own_ciphers: bool = True


def make_context(settings: TlsSettings, read: Callable[[str], bytes]) -> ssl.SSLContext:
    """Return the context that follows *settings*.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` for a certificate or key that is not what it should be, and
    :exc:`~hr_prometheus.errors.ServingError` for one that cannot be read.
    """
    import ssl  # noqa: PLC0415  # a Python may be built without it

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_chain(context, settings.certificate, settings.key, read)
    _choose_versions_and_ciphers(context, settings)
    if settings.client_ca is not None:
        if settings.client_auth_type not in VERIFIED and settings.client_ca.exists():
            raise settings.client_ca.error(NOT_VERIFIED)
        _load_authorities(context, settings.client_ca, settings.client_ca.read(read, "certificates"))
    if settings.client_auth_type in VERIFIED:
        # As Go has it, and with all versions of Python the same: each certificate of the authorities is trusted by itself.
        context.verify_flags = (context.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
        is_required = settings.client_auth_type == "RequireAndVerifyClientCert"
        context.verify_mode = ssl.CERT_REQUIRED if is_required else ssl.CERT_OPTIONAL
        if settings.client_ca is None:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        if settings.allowed_names:
            context.sslobject_class = _checked_object(settings.allowed_names)
    return context


def _choose_versions_and_ciphers(context: ssl.SSLContext, settings: TlsSettings) -> None:
    import ssl  # noqa: PLC0415  # as above

    ciphers = [CIPHERS[name] for name in settings.cipher_suites if CIPHERS[name]]
    # Those of TLS 1.3 cannot be chosen; where there is no other, there is no other version either.
    minimum = settings.min_version if ciphers or not settings.cipher_suites else "TLS13"
    context.minimum_version = ssl.TLSVersion[VERSIONS[minimum]]
    context.maximum_version = ssl.TLSVersion[VERSIONS[settings.max_version]]
    if minimum in ("TLS10", "TLS11"):
        context.set_ciphers(":".join([*(ciphers or ["DEFAULT"]), "@SECLEVEL=0"]))  # OpenSSL's other levels refuse them
    elif ciphers:
        context.set_ciphers(":".join(ciphers))
    if not settings.prefers_own_ciphers:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE


def _load_authorities(context: ssl.SSLContext, authorities: Pem, text: bytes) -> None:
    import ssl  # noqa: PLC0415  # as above

    try:
        context.load_verify_locations(cadata=text.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError) as error:
        raise authorities.error(" has no certificate. Expected one or more in PEM format.") from error


def _checked_object(allowed_names: frozenset[str]) -> type[ssl.SSLObject]:
    """Return a class of connections that fail at the handshake unless the client's certificate has one of the names."""
    import ssl  # noqa: PLC0415  # as above

    class CheckedObject(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            names = {_normalized(kind, name) for kind, name in _alternative_names(self.getpeercert())}
            if not names & allowed_names:
                raise ssl.SSLCertVerificationError(ssl.SSL_ERROR_SSL, "the client's certificate has no allowed name")

    return CheckedObject


def _alternative_names(certificate: Any) -> list[tuple[str, str]]:
    return list((certificate or {}).get("subjectAltName", ()))


def _normalized(kind: str, name: str) -> str:
    """Return a name as a web configuration has it: an IPv6 address is short there, and long in Python."""
    try:
        return str(ip_address(name)) if kind == "IP Address" else name
    except ValueError:
        return name
