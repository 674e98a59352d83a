"""What a Prometheus needs to come to the metrics: certificates, a token, or a user with a password."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hr_prometheus.access.access import web_config_of
from hr_prometheus.access.tls import VERIFIED
from hr_prometheus.observability.yaml_text import quote

if TYPE_CHECKING:
    from hr_prometheus.settings import Settings

#: The files that only the scraper has, beside its configuration.
_PASSWORD, _CERTIFICATE, _KEY = "prometheus.password", "prometheus.pem", "prometheus-key.pem"
#: The file for a certificate that stands in the web configuration itself.
_CA = "prometheus-ca.pem"


@dataclass(frozen=True)
class Credentials:
    """What a scrape needs. Empty texts need nothing; with a *token_file* no user is needed.

    *ca_file* is the server's own certificate. It may be a self-signed one; what a public authority has signed needs no such line.
    """

    ca_file: str = ""
    token_file: str = ""
    user: str = ""
    needs_certificate: bool = False

    def for_prometheus(self) -> dict[str, Any]:
        """Return the settings in a configuration of Prometheus."""
        tls = {"ca_file": self.ca_file} if self.ca_file else {}
        if self.needs_certificate:
            tls |= {"cert_file": _CERTIFICATE, "key_file": _KEY}
        config: dict[str, Any] = {"tls_config": tls} if tls else {}
        if self.token_file:
            config["authorization"] = {"type": "Bearer", "credentials_file": self.token_file}
        elif self.user:
            config["basic_auth"] = {"username": self.user, "password_file": _PASSWORD}
        return config

    def for_operator(self, secret: str) -> dict[str, Any]:
        """Return the settings of an endpoint of the Prometheus operator; what is secret is in a *secret* of Kubernetes."""

        def key(name: str) -> dict[str, str]:
            return {"name": secret, "key": name}

        tls: dict[str, Any] = {"ca": {"secret": key("ca.pem")}} if self.ca_file else {}
        if self.needs_certificate:
            tls |= {"cert": {"secret": key(_CERTIFICATE)}, "keySecret": key(_KEY)}
        endpoint: dict[str, Any] = {"tlsConfig": tls} if tls else {}
        if self.token_file:
            endpoint["authorization"] = {"type": "Bearer", "credentials": key("token")}
        elif self.user:
            endpoint["basicAuth"] = {"username": key("username"), "password": key("password")}
        return endpoint

    def comments(self, secret: str = "") -> list[str]:
        """Return lines for what has to be put somewhere: into a *secret* of Kubernetes, or beside Prometheus' configuration."""
        if secret:
            keys = ["ca.pem"] * bool(self.ca_file) + [_CERTIFICATE, _KEY] * self.needs_certificate
            keys += ["token"] if self.token_file else ["username", "password"] * bool(self.user)
            return [f"The Secret {secret} needs the keys {', '.join(keys)}."] * bool(keys)
        files = [f"the server's certificate {_CA}, the text under cert"] * (self.ca_file == _CA)
        files += [f"the client's certificate {_CERTIFICATE} and its key {_KEY}"] * self.needs_certificate
        files += [f"the password of {quote(self.user)} in {_PASSWORD}"] * bool(self.user and not self.token_file)
        return [f"Beside it put {', and '.join(files)}."] * bool(files)


def credentials_of(settings: Settings) -> Credentials:
    """Return what a scrape of a server with *settings* needs."""
    if settings.metrics_port is None:
        return Credentials("" if settings.certfile is None else os.path.abspath(settings.certfile))
    config = web_config_of(settings)
    tls, token_file = config.tls, settings.metrics_token_file
    ca_file = ""
    if tls is not None:
        ca_file = os.path.abspath(tls.certificate.path) if tls.certificate.path else _CA
    return Credentials(
        ca_file=ca_file,
        token_file="" if token_file is None else os.path.abspath(token_file),
        user=next(iter(config.users), b"").decode(errors="replace"),
        needs_certificate=tls is not None and tls.client_auth_type == VERIFIED[-1],
    )
