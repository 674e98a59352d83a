"""The TLS context of the application's own addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hr_prometheus.access.certificates import Pem, load_chain

if TYPE_CHECKING:
    import ssl

    from hr_prometheus.settings import Settings


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the context for the certificate in *settings*, or ``None`` without one.

    Raises :exc:`~hr_prometheus.errors.SettingError` for a file that is not what it should be, and
    :exc:`~hr_prometheus.errors.ServingError` for one that cannot be read.
    """
    if settings.certfile is None:
        return None
    import ssl  # noqa: PLC0415  # a Python may be built without it

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    key = None if settings.keyfile is None else Pem.of_option(settings, "keyfile")
    load_chain(context, Pem.of_option(settings, "certfile"), key)
    return context
