"""The label of the host that a request goes to."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import cast

from yarl import URL

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.labels.fold import Budget

logger = logging.getLogger("hr_prometheus")

DEFAULT_HOST_BUDGET = 20
#: The label of hosts without a name, once the budget is spent.
OTHER = "other"


class HostLabels:
    """The labels of hosts: the names in *names*, and of up to *budget* others what their URLs have.

    A key of *names* is a host, or a host and a port. A host without a name is labelled with its port, unless that is its
    scheme's. *client* is the name of their client in the warning when it is spent.
    Raises :exc:`~hr_prometheus.errors.ConfigurationError` for wrong arguments.
    """

    def __init__(self, client: str, names: Mapping[str, str] | None, budget: int) -> None:
        if isinstance(budget, bool) or not isinstance(budget, int) or budget < 0:
            raise ConfigurationError(f"host_budget is {budget!r}. Expected a whole number from 0 on.")
        self._client, self._limit = client, budget
        # With workers it is shared, as those of routes are. No template has a space.
        self._budget = Budget(budget, "", f"hosts of {client}")
        self._names = {_address(key): name for key, name in _checked(names or {})}
        self._has_warned = False

    def label(self, url: URL) -> str | None:
        """Return the label of a URL's host; ``None`` if it has no place, and shares the label ``other``."""
        host = (url.raw_host or "").removesuffix(".")  # which the root's name may end in
        name = self._names.get((host, url.port)) or self._names.get((host, None))
        if name is not None:
            return name
        label = url.host_port_subcomponent or ""  # without such a dot
        if self._budget.admit(label):
            return label
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                'The client "%s" has used its budget of %d hosts; further ones are recorded as other. Name those that '
                'matter: client_trace_config(hosts={"api.example.com": "payments"}); for more: host_budget.',
                self._client,
                self._limit,
            )
        return None


def _checked(names: object) -> list[tuple[str, str]]:
    pairs: list[tuple[object, object]] = list(names.items()) if isinstance(names, Mapping) else [(names, None)]
    for pair in pairs:
        if not all(isinstance(each, str) and each for each in pair):
            raise ConfigurationError(
                f'hosts is {names!r}. Expected names by hosts, for example {{"api.example.com": "payments"}}.'
            )
    return cast("list[tuple[str, str]]", pairs)


def _address(key: str) -> tuple[str, int | None]:
    """Return a host, as URLs have it, and its port."""
    try:
        url = URL(f"//{key}")
        if (
            url.raw_host
            and url.raw_path in ("", "/")
            and not (url.raw_query_string or url.raw_fragment or url.raw_user)
        ):
            return url.raw_host.removesuffix("."), url.explicit_port
    except ValueError:
        pass
    raise ConfigurationError(
        f'"{key}" in hosts is not a host. Expected a host, with a port or without: "api.example.com", "localhost:9000", "[::1]".'
    )
