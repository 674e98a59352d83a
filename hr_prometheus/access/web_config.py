"""The web configuration of Prometheus' exporters, strictly read.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md is the format.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hr_prometheus.access.certificates import Pem
from hr_prometheus.access.rate_limit import RateLimit
from hr_prometheus.access.tls import (
    CIPHERS,
    CLIENT_AUTH_TYPES,
    NOT_VERIFIED,
    UNVERIFIABLE,
    VERIFIED,
    VERSIONS,
    TlsSettings,
)
from hr_prometheus.access.yaml_section import Section, read_section
from hr_prometheus.errors import ConfigurationError, ServingError, did_you_mean
from hr_prometheus.quotes import quote_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_TOP = ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
_TLS = (
    "cert", "key", "client_ca", "cert_file", "key_file", "client_auth_type", "client_ca_file", "client_allowed_sans",
    "min_version", "max_version", "cipher_suites", "prefer_server_cipher_suites", "curve_preferences",
)  # fmt: skip
#: The headers that can be set, with all values of those that have a list.
_HEADERS = {
    "Content-Security-Policy": (),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-Content-Type-Options": ("nosniff",),
    "X-XSS-Protection": (),
    "Strict-Transport-Security": (),
}
#: A file is read between requests. PyYAML takes up to a second for one of this size.
_MOST_BYTES = 2**17
#: Of the last character of the salt bcrypt uses two bits. Its package refuses those with other ones.
_BCRYPT = re.compile(r"\$2[abxy]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
#: Seconds of the longest duration that Go can have: 2^63 nanoseconds.
_LONGEST_DURATION = 2**63 / 1e9
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class WebConfig:
    """A web configuration. *users* are bcrypt hashes by names; without them everyone may come."""

    tls: TlsSettings | None = None
    users: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    rate_limit: RateLimit | None = None


def read_web_config(path: str, read: Callable[[str], bytes]) -> WebConfig:
    """Return the web configuration in a file. Files that it names are not read; their paths are relative to its directory.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` for what is wrong with it, and
    :exc:`~hr_prometheus.errors.ServingError` if it cannot be read.
    """
    _check_extra("yaml", "PyYAML")
    try:
        text = read(path)
    except OSError as error:
        problem = f" cannot be read: {error.strerror}. Expected a web configuration."
        raise ServingError(quote_path(path) + problem) from error
    if len(text) > _MOST_BYTES:
        problem = f" is larger than {_MOST_BYTES >> 10} KiB. Expected a web configuration."
        raise ConfigurationError(quote_path(path) + problem)
    top = read_section(path, text, _TOP)
    return WebConfig(
        tls=_read_tls(top.section("tls_server_config", _TLS)),
        users=_read_users(top.section("basic_auth_users", None)),
        headers=_read_headers(top.section("http_server_config", ("http2", "headers"))),
        rate_limit=_read_rate_limit(top.section("rate_limit", ("interval", "burst"))),
    )


def _check_extra(module: str, package: str) -> None:
    from importlib.util import find_spec  # noqa: PLC0415  # seldom needed

    if find_spec(module) is None:
        raise ConfigurationError(
            f'web configurations need {package}, which is not installed. Install hr-prometheus with the extra "auth".'
        )


def _read_tls(section: Section) -> TlsSettings | None:
    if "curve_preferences" in section:
        raise section.error(
            "curve_preferences", " cannot be followed: Python takes no list of curves. Leave it out for OpenSSL's own."
        )
    versions = [
        _choose(section, key, VERSIONS, default)
        for key, default in (("min_version", "TLS12"), ("max_version", "TLS13"))
    ]
    ciphers = section.texts("cipher_suites")
    for name in ciphers:
        if name not in CIPHERS:
            problem = f" is not a cipher suite of Go's.{did_you_mean(name, CIPHERS)} Expected names as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256."
            raise section.value_error("cipher_suites", name, problem, CIPHERS)
    if ciphers and not any(CIPHERS[name] for name in ciphers) and versions[1] != "TLS13":
        problem = (
            " has only suites of TLS 1.3, and max_version allows none. Add one of TLS 1.2, or leave max_version out."
        )
        raise section.error("cipher_suites", problem)
    prefers_own = section.flag("prefer_server_cipher_suites", default=True)
    if not any(key in section for key in _TLS):
        return None
    certificate, key = (_read_pem(section, name) for name in ("cert", "key"))
    for name, pem in (("cert", certificate), ("key", key)):
        if pem is None:
            raise ConfigurationError(f"{section.subject} has neither {name} nor {name}_file. TLS needs one of them.")
    assert certificate is not None and key is not None  # noqa: S101, PT018  # just checked
    if list(VERSIONS).index(versions[0]) > list(VERSIONS).index(versions[1]):
        raise section.error(
            "min_version" if "min_version" in section else "max_version", ": min_version is above max_version."
        )
    return TlsSettings(
        certificate=certificate,
        key=key,
        client_ca=_read_pem(section, "client_ca"),
        client_auth_type=_read_client_auth_type(section),
        allowed_names=frozenset(section.texts("client_allowed_sans")),
        min_version=versions[0],
        max_version=versions[1],
        cipher_suites=tuple(ciphers),
        prefers_own_ciphers=prefers_own,
    )


def _read_pem(section: Section, key: str) -> Pem | None:
    """Return the PEM text that is under *key*, or in the file under *key* with ``_file``."""
    text, path = section.text(key), section.text(f"{key}_file")
    if text and path:
        raise section.error(key, f" was given with {key}_file. Leave one of them out.")
    if "-----BEGIN" in path or "\n" in path or "\r" in path:
        raise section.error(f"{key}_file", f" is PEM text, and no path. Put it under {key}.")
    if path:
        subject = section.subject_of(f"{key}_file", quote_path(path))
        return Pem(subject, os.path.join(os.path.dirname(section.file), path))
    return Pem(section.subject_of(key), text=text) if text else None


def _read_client_auth_type(section: Section) -> str:
    default = "NoClientCert"
    name = _choose(section, "client_auth_type", ("", *CLIENT_AUTH_TYPES), default) or default
    if name in UNVERIFIABLE:
        problem = (
            " cannot be followed: Python takes no certificate that it does not verify. Take RequireAndVerifyClientCert."
        )
        raise section.value_error("client_auth_type", name, problem, UNVERIFIABLE)
    if name not in VERIFIED and "client_allowed_sans" in section:
        raise section.error("client_allowed_sans", NOT_VERIFIED)
    if "client_allowed_sans" in section and not section.texts("client_allowed_sans"):
        problem = " is an empty list, with which no client could come. Expected the names that may, or no such line."
        raise section.error("client_allowed_sans", problem)
    return name


def _choose(section: Section, key: str, values: Iterable[str], default: str) -> str:
    """Return the text under *key*, which has to be one of *values*."""
    text = section.text(key) if key in section else default
    if text not in values:
        problem = f" is unknown.{did_you_mean(text, values)} Expected one of {', '.join(filter(None, values))}."
        raise section.value_error(key, text, problem, values)
    return text


def _read_users(section: Section) -> dict[bytes, bytes]:
    users = {}
    for name in section:
        hashed = section.text(name)
        if not _BCRYPT.fullmatch(hashed):
            problem = (
                " is not a hash of bcrypt. Expected NAME: HASH, with a hash as htpasswd -nBC 10 writes it: $2y$10$…"
            )
            raise section.error(name, problem)
        users[name.encode(errors="surrogatepass")] = hashed.encode()
    if users:
        _check_extra("bcrypt", "bcrypt")
    return users


def _read_headers(section: Section) -> dict[str, str]:
    if section.flag("http2", default=False):
        raise section.error("http2", " cannot be true: the metrics are served by HTTP/1.1. Leave it out.")
    headers = section.section("headers", tuple(_HEADERS))
    texts = {name: headers.text(name) for name in headers}
    for name, text in texts.items():
        if _HEADERS[name] and text not in _HEADERS[name]:
            problem = f" is not a value of this header. Expected {' or '.join(_HEADERS[name])}."
            raise headers.value_error(name, text, problem, _HEADERS[name])
        if not text.isprintable():
            raise headers.error(name, " has characters that no header can have. Remove them.")
    return {name: text for name, text in texts.items() if text}


def _read_rate_limit(section: Section) -> RateLimit | None:
    interval, burst = section.text("interval"), section.number("burst")
    seconds = 0.0
    if interval not in ("", "0"):
        parts = _DURATION_PART.findall(interval)
        if "".join(number + unit for number, unit in parts) != interval:
            problem = " is not a duration. Expected numbers with units, for example 500ms or 1m30s."
            raise section.value_error("interval", interval, problem)
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
        if seconds >= _LONGEST_DURATION:
            raise section.error("interval", " is longer than Go's longest duration. Expected at most 2562047h.")
    return RateLimit(seconds, burst) if seconds else None
