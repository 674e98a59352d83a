"""The addresses of a script: its worker binds them, and hands the sockets to the supervisor for the next worker.

Only the script itself knows them, when it calls ``web.run_app``.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hr_prometheus.errors import TargetError
from hr_prometheus.server.bind import bind_addresses, pop_addresses, remove_unix_sockets

if TYPE_CHECKING:
    from hr_prometheus.server.bind import BoundAddresses
    from hr_prometheus.settings import Settings
    from hr_prometheus.workers.config import WorkerConfig

#: The most bytes and descriptors of a message.
_MOST_BYTES, _MOST_DESCRIPTORS = 65536, 100


@dataclass(frozen=True)
class ScriptSockets:
    """What a script has asked for, as values of JSON, and the *sockets* that were bound for it."""

    request: dict[str, Any]
    sockets: list[socket.socket]
    urls: list[str]
    metrics_url: str

    def succeed(self, addresses: BoundAddresses) -> BoundAddresses:
        """Close the sockets of *addresses*, which the script has asked for before, and return those with the new ones."""
        for each in addresses.sockets:
            each.close()
        remove_unix_sockets(set(addresses.urls).difference(self.urls))
        metrics_url = addresses.metrics_url if addresses.metrics_sockets else self.metrics_url
        return replace(addresses, sockets=self.sockets, urls=self.urls, metrics_url=metrics_url)


class Handover:
    """The supervisor's end of a pair of sockets; a worker inherits the *descriptor* of the other end."""

    def __init__(self) -> None:
        self._connection, self._other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.descriptor = self._other.fileno()

    def take(self) -> ScriptSockets | None:
        """Return the sockets that the worker has handed over; ``None`` if it has used those that it inherited."""
        self._connection.setblocking(False)
        try:
            message, descriptors, _, _ = socket.recv_fds(self._connection, _MOST_BYTES, _MOST_DESCRIPTORS)
        except BlockingIOError:
            return None
        return ScriptSockets(sockets=[socket.socket(fileno=each) for each in descriptors], **json.loads(message))

    def close_other(self) -> None:
        """Close the end that the worker has inherited."""
        self._other.close()

    def close(self) -> None:
        """Close both ends, with what was handed over and not taken."""
        self._connection.close()
        self._other.close()


def take_script_addresses(config: WorkerConfig, settings: Settings, arguments: dict[str, Any]) -> WorkerConfig:
    """Move the addresses out of ``run_app``'s *arguments*, and return the *config* with sockets that are bound there.

    Where the script asks for an address again, it is the socket that the worker has inherited.
    """
    with socket.socket(fileno=config.handover) as connection:
        os.set_inheritable(connection.fileno(), False)
        rest = dict(arguments)
        host, port, paths, own_sockets = pop_addresses(settings, rest, is_script=True)
        if own_sockets:
            raise TargetError(
                f'the script "{settings.target}" gives web.run_app a socket of its own, which --reload cannot keep for the next '
                "process. Expected a host and a port, or the path of a Unix socket."
            )
        request = {
            "host": host if host is None or isinstance(host, str) else list(host),
            "port": port,
            "paths": paths,
            "is_secure": arguments.get("ssl_context") is not None,
        }
        if request == config.script_request:
            arguments.clear()
            arguments.update(rest)
            return config
        inherited = []
        if settings.fds:
            settings = replace(settings, fds=tuple(config.sockets))
        else:
            inherited = [socket.socket(fileno=descriptor) for descriptor in config.sockets]
        with ExitStack() as stack:
            addresses = bind_addresses(
                settings, arguments, stack, is_script=True, with_metrics=False, inherited=inherited
            )
            stack.pop_all()  # the supervisor keeps them
        for each in inherited:
            if each not in addresses.sockets:
                each.close()
        descriptors = [each.fileno() for each in addresses.sockets]
        message = {"request": request, "urls": addresses.urls, "metrics_url": addresses.metrics_url}
        socket.send_fds(connection, [json.dumps(message).encode()], descriptors)
    return replace(config, sockets=[each.detach() for each in addresses.sockets], urls=addresses.urls)
