"""From the settings of the metrics port to who may come to it, read again when a file changes."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hr_prometheus.access.certificates import Pem
from hr_prometheus.access.files import FileStates, read_file
from hr_prometheus.access.tls import TlsSettings, make_context
from hr_prometheus.access.token import read_token
from hr_prometheus.access.web_config import WebConfig, read_web_config
from hr_prometheus.errors import ConfigurationError, HrPrometheusError
from hr_prometheus.origins import sentence_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from hr_prometheus.access.rate_limit import RateLimit
    from hr_prometheus.settings import Settings

logger = logging.getLogger("hr_prometheus")

#: The warning about access that refuses all.
NO_BURST = "rate_limit has an interval and a burst of 0, so that each request is answered with 429. Give it a burst."
#: Seconds that wrong files are given to become right before they are logged: a certificate and its key are two files.
_PATIENCE = 1.0


@dataclass(frozen=True)
class Access:
    """Who may come to the metrics port, and how.

    Of *token* and *users*, bcrypt's hashes by names, a request needs one; without either everyone may come.
    """

    tls: ssl.SSLContext | None = None
    token: bytes | None = field(default=None, repr=False)
    users: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    #: Those that each response has, unless it has its own.
    headers: Mapping[str, str] = field(default_factory=dict)
    rate_limit: RateLimit | None = None

    @property
    def is_open(self) -> bool:
        """Whether everyone may come, without credentials or a certificate."""
        needs_certificate = self.tls is not None and self.tls.verify_mode == self.tls.verify_mode.CERT_REQUIRED
        return self.token is None and not self.users and not needs_certificate

    @property
    def refuses_all(self) -> bool:
        """Whether each request is one too many."""
        return self.rate_limit is not None and not self.rate_limit.burst


def read_access(settings: Settings, read: Callable[[str], bytes]) -> Access:
    """Return what the settings and their files say.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` for a file that is not what it should be, and
    :exc:`~hr_prometheus.errors.ServingError` for one that cannot be read.
    """
    path = settings.metrics_token_file
    token = None if path is None else read_token(path, "metrics_token_file", read)
    config = web_config_of(settings, read)
    tls = None if config.tls is None else make_context(config.tls, read)
    return Access(tls=tls, token=token, users=config.users, headers=config.headers, rate_limit=config.rate_limit)


def web_config_of(settings: Settings, read: Callable[[str], bytes] = read_file) -> WebConfig:
    """Return the web configuration in the settings, or what the options of the metrics port say in its place."""
    if settings.metrics_web_config is not None:
        return read_web_config(settings.metrics_web_config, read)
    if settings.metrics_certfile is None:
        return WebConfig()
    key = None if settings.metrics_keyfile is None else Pem.of_option(settings, "metrics_keyfile")
    return WebConfig(tls=TlsSettings(Pem.of_option(settings, "metrics_certfile"), key))


def metrics_scheme(settings: Settings) -> str:
    """Return the scheme of the metrics port's URLs."""
    return "http" if web_config_of(settings).tls is None else "https"


class CurrentAccess:
    """What the files of *settings* say now. While they are wrong, the earlier settings hold, and one error is logged.

    Raises what :func:`read_access` raises if they are wrong from the beginning.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._files = settings, FileStates()
        self._access = read_access(settings, self._files.read)
        self._error: Exception | None = None
        self.tls = None if self._access.tls is None else _current_context(lambda: self.get().tls)

    def get(self) -> Access:
        """Return it. It is called in an event loop, for each connection and each request."""
        if self._files.have_changed():
            self._files = FileStates()
            self._error = None
            try:
                access = read_access(self._settings, self._files.read)
                self._check_change(access)
                self._access = access
                self.warn()
            except Exception as error:  # noqa: BLE001  # whatever is in a file, the port goes on
                self._error = error
                asyncio.get_running_loop().call_later(_PATIENCE, self._log_error, error)
        return self._access

    def warn(self) -> None:
        """Log what is allowed and hardly intended."""
        if self._access.refuses_all:
            logger.warning(NO_BURST)

    def _check_change(self, access: Access) -> None:
        if (access.tls is None) != (self._access.tls is None):
            raise ConfigurationError(
                "The new settings switch TLS on or off, which a running port cannot do. Restart hr-prometheus."
            )
        if access.is_open and not self._access.is_open:  # as an empty file says, which may only be half written
            raise ConfigurationError(
                "The new settings require no credentials, so everyone could read the metrics. Restart hr-prometheus if you intend that."
            )

    def _log_error(self, error: Exception) -> None:
        self.get()
        if self._error is error:
            # The text of an error that nobody expected may have a part of the file.
            is_ours = isinstance(error, HrPrometheusError)
            sentence = sentence_of(error, self._settings.origins) if is_ours else f"{type(error).__name__}."
            logger.error("The metrics port keeps its earlier settings. %s", sentence)


def _current_context(current: Callable[[], ssl.SSLContext | None]) -> ssl.SSLContext:
    """Return a context that leaves each handshake to the one that *current* returns then."""
    import ssl  # noqa: PLC0415  # a Python may be built without it

    class CurrentContext(ssl.SSLContext):
        def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
            context = current()
            assert context is not None  # noqa: S101  # TLS neither comes nor goes
            return context.wrap_bio(*arguments, **options)

    return CurrentContext(ssl.PROTOCOL_TLS_SERVER)
