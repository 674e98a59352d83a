"""Clients behind proxies: the access log has their addresses and schemes, from the headers of peers that are trusted."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from aiohttp.abc import AbstractAccessLogger

from hr_prometheus.written_forms import ALL_PEERS, UNIX_PEERS

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable, Iterator

    from aiohttp.web import BaseRequest, StreamResponse

#: The most entries of a header that are read, from the right. No chain of proxies is as long, but a client may send any number.
_MOST_ENTRIES = 100
#: How many addresses are remembered, with whether they are trusted.
_MOST_ADDRESSES = 1024
#: An address, perhaps in brackets, and perhaps with a port.
_ENTRY = re.compile(r"\[([^\[\]]+)\](?::\d+)?|([^:]+):\d+|(.+)")
#: Some proxies name the scheme of a WebSocket.
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class TrustedPeers:
    """The peers whose X-Forwarded-For and X-Forwarded-Proto count: *names* are addresses, networks, ``unix`` and ``*``."""

    def __init__(self, names: Iterable[str]) -> None:
        names = set(names)
        self._trusts_all = ALL_PEERS in names
        self._trusts_unix = self._trusts_all or UNIX_PEERS in names
        self._networks = [ip_network(name) for name in names - {ALL_PEERS, UNIX_PEERS}]
        self._trusts = lru_cache(_MOST_ADDRESSES)(self._is_listed)

    def view(self, request: BaseRequest) -> BaseRequest:
        """Return a view of *request* as its client has sent it, or the request itself if its peer is not trusted.

        The client is the first address of X-Forwarded-For, from the right, that is not trusted. What is no address ends the
        search: the client is the address to the right of it. The scheme is the entry of X-Forwarded-Proto at the client's
        place, from the right, or the nearest one.
        """
        if not request.headers:  # what aiohttp's parser refuses has a dict that is empty, and no multidict
            return request
        if request.remote is None or not self._trusts(request.remote):
            return request
        client, place = request.remote, 0
        for entry in _entries_from_the_right(request, "X-Forwarded-For"):
            address = _parse_address(entry)
            if address is None:
                break
            client, place = address, place + 1
            if not self._trusts(address):
                break
        schemes = list(islice(_entries_from_the_right(request, "X-Forwarded-Proto"), max(place, 1)))
        scheme = _SCHEMES.get(schemes[-1].lower()) if schemes else None
        return cast("BaseRequest", _ClientView(request, client, scheme or request.scheme))

    def _is_listed(self, peer: str) -> bool:
        try:
            address = ip_address(peer.partition("%")[0])  # without the zone
        except ValueError:  # aiohttp has the path of a Unix socket, which is mostly empty
            return self._trusts_unix
        forms = {address, getattr(address, "ipv4_mapped", None) or address}
        return self._trusts_all or any(form in network for form in forms for network in self._networks)


def _entries_from_the_right(request: BaseRequest, name: str) -> Iterator[str]:
    number = 0
    for value in reversed(request.headers.getall(name, ())):
        for entry in reversed(value.rsplit(",", _MOST_ENTRIES)):
            number += 1
            if number > _MOST_ENTRIES:
                return
            if entry.strip():
                yield entry.strip()


def _parse_address(entry: str) -> str | None:
    """Return the address of an entry, without a port or a zone; ``None`` if it has none."""
    match = _ENTRY.fullmatch(entry)
    try:
        address = ip_address((match[match.lastindex or 0] if match else "").partition("%")[0])
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


class _ClientView(MutableMapping[Any, Any]):
    """A request with another address and scheme. What else it is asked for is the request's."""

    def __init__(self, request: BaseRequest, remote: str, scheme: str) -> None:
        self._request, self.remote, self.scheme = request, remote, scheme

    @property  # type: ignore[misc]  # mypy takes it for one that can be set
    def __class__(self) -> Any:
        """The request's, for those who ask whether it is one."""
        return type(self._request)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)

    def __getitem__(self, key: Any) -> Any:
        return self._request[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._request[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._request[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._request)

    def __len__(self) -> int:
        return len(self._request)

    def __bool__(self) -> bool:
        return True  # as a request is

    def __repr__(self) -> str:
        return repr(self._request)

    __eq__, __hash__ = object.__eq__, object.__hash__


def log_clients(
    base: Callable[[logging.Logger, str], AbstractAccessLogger], peers: TrustedPeers
) -> type[AbstractAccessLogger]:
    """Return an ``access_log_class`` which shows *base* the requests as the clients of trusted *peers* have sent them."""

    class ForwardedAccessLogger(AbstractAccessLogger):
        def __init__(self, logger: logging.Logger, log_format: str) -> None:
            super().__init__(logger, log_format)
            self._base = base(logger, log_format)

        @property
        def enabled(self) -> bool:
            return self._base.enabled

        def log(self, request: BaseRequest, response: StreamResponse, time: float) -> None:
            self._base.log(peers.view(request), response, time)

    return ForwardedAccessLogger
