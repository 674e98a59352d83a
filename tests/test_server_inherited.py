from __future__ import annotations

import os
import socket

import pytest

from hr_prometheus.errors import ConfigurationError, SettingError
from hr_prometheus.server.bind import url_of
from hr_prometheus.server.inherited import passed_descriptors, take_sockets


def bound(family: int = socket.AF_INET, address: object = ("127.0.0.1", 0), kind: int = socket.SOCK_STREAM) -> int:
    """Return the descriptor of a socket that is bound, as a program inherits it."""
    sock = socket.socket(family, kind)
    sock.bind(address)
    sock.set_inheritable(True)
    return sock.detach()


@pytest.mark.parametrize(
    ("variables", "descriptors"),
    [
        ({}, ()),
        ({"LISTEN_PID": str(os.getpid())}, ()),
        ({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"}, (3, 4)),
        ({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"}, ()),
        ({"LISTEN_PID": "1", "LISTEN_FDS": "2"}, ()),
        ({"LISTEN_PID": "", "LISTEN_FDS": "x"}, ()),
    ],
)
def test_what_systemd_has_passed(monkeypatch, variables, descriptors):
    """It is for this process, or nothing."""
    for name in ("LISTEN_PID", "LISTEN_FDS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert passed_descriptors() == descriptors


@pytest.mark.parametrize("number", ["x", "-1", "", "99999"])
def test_a_number_that_is_none(monkeypatch, number):
    """It is an error, since no socket would be served."""
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", number)
    with pytest.raises(ConfigurationError, match=f'^LISTEN_FDS="{number}" is not understood.'):
        passed_descriptors()


def close(sockets):
    for each in sockets:
        each.close()


def test_sockets_are_as_they_were_bound(tmp_path):
    """TCP comes first, since its URL is that of the metrics; each descriptor is taken once, and no program inherits it."""
    path = str(tmp_path / "socket")
    unix, tcp, abstract = bound(socket.AF_UNIX, path), bound(), bound(socket.AF_UNIX, f"\0{path}")
    sockets = take_sockets([unix, tcp, abstract, unix])
    assert [each.fileno() for each in sockets] == [tcp, unix, abstract]
    assert [url_of(each, "https") for each in sockets[1:]] == [f"unix:{path}", f"unix:@{path}"]
    assert url_of(sockets[0], "https") == f"https://127.0.0.1:{sockets[0].getsockname()[1]}"
    assert not any(map(os.get_inheritable, (unix, tcp, abstract)))
    close(sockets)


def test_kept_sockets_can_be_taken_again():
    """As a script needs it that serves twice."""
    descriptor = bound()
    close(take_sockets([descriptor], keep=True))
    sockets = take_sockets([descriptor])
    assert sockets[0].getsockname()[1]
    close(sockets)


def test_what_nothing_can_be_served_on():
    """Each is one sentence, which names the descriptor and the reason."""
    closed = bound()
    os.close(closed)
    datagram, unbound, file = bound(kind=socket.SOCK_DGRAM), socket.socket(), os.open(os.devnull, os.O_RDONLY)
    connected, other = socket.socketpair()
    for descriptor, reason in {
        closed: "is not open",
        file: "is not a socket",
        datagram: r"is of another kind \(AF_INET, SOCK_DGRAM\)",
        connected.fileno(): "is connected to one client",
        unbound.fileno(): "is not bound to an address",
        2**40: "is not open",
    }.items():
        with pytest.raises(SettingError, match=f'^--fd "{descriptor}": descriptor {descriptor} {reason}'):
            take_sockets([descriptor])
    for each in (datagram, file):
        os.close(each)
    close([connected, other, unbound])
