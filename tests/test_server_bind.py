from __future__ import annotations

import os
import socket

import pytest

from hr_prometheus.errors import ServingError
from hr_prometheus.server.bind import bind_tcp, check_unix_path, host_and_port, remove_unix_path, url_of


def close(sockets):
    for each in sockets:
        each.close()


def test_port_zero_picks_one_for_all_hosts():
    """Several addresses share the free port that the first one got."""
    sockets = bind_tcp(["127.0.0.1", "127.0.0.2"], 0)
    try:
        assert len({each.getsockname()[1] for each in sockets}) == 1
        assert [each.getsockname()[0] for each in sockets] == ["127.0.0.1", "127.0.0.2"]
    finally:
        close(sockets)


def test_no_host_is_every_address():
    """None listens everywhere, on IPv4 at least."""
    sockets = bind_tcp(None, 0)
    try:
        assert "0.0.0.0" in [each.getsockname()[0] for each in sockets]  # noqa: S104
    finally:
        close(sockets)


def test_sockets_do_not_listen_yet():
    """Until the application is ready, a client is refused instead of kept waiting."""
    (sock,) = bind_tcp("127.0.0.1", 0)
    try:
        with socket.socket() as client, pytest.raises(ConnectionRefusedError):
            client.connect(sock.getsockname())
    finally:
        sock.close()


def test_a_port_in_use():
    """The sentence names the address and the cure; what was bound before is closed again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServingError, match=f"cannot listen on 127.0.0.1:{port}: another process uses it.*port 0"):
            bind_tcp(["127.0.0.2", "127.0.0.1"], port)
        close(bind_tcp("127.0.0.2", port))


def test_shared_ports():
    """SO_REUSEPORT lets two sockets have one port."""
    (first,) = bind_tcp("127.0.0.1", 0, reuse_port=True)
    try:
        first.listen()
        close(bind_tcp("127.0.0.1", first.getsockname()[1], reuse_port=True))
    finally:
        first.close()


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("192.0.2.1", "this machine has no such address"),
        ("no.such.host.invalid", "Expected an address of this machine"),
    ],
)
def test_hosts_that_cannot_be(host, words):
    """An address of another machine and an unknown name have errors of their own."""
    with pytest.raises(ServingError, match=words):
        bind_tcp(host, 0)


def test_urls():
    """IPv6 addresses are in brackets."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert url_of(sock, "https") == f"https://127.0.0.1:{sock.getsockname()[1]}"
    assert host_and_port("::1", 80) == "[::1]:80"


def test_unix_paths(tmp_path):
    """A dead socket may be replaced; a live one, another file or an impossible place may not."""
    path = str(tmp_path / "socket")
    check_unix_path(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert url_of(server, "http") == f"unix:{path}"
        with pytest.raises(ServingError, match="another process serves on this socket"):
            check_unix_path(path)
    check_unix_path(path)
    remove_unix_path(path)
    assert not os.path.exists(path)
    remove_unix_path(path)
    (tmp_path / "file").touch()
    for wrong, words in {
        tmp_path / "file": "it is not a socket",
        tmp_path / "none" / "socket": "is not a directory that can be written to",
        tmp_path / ("x" * 120): "at most 107 bytes",
    }.items():
        with pytest.raises(ServingError, match=words):
            check_unix_path(str(wrong))
    remove_unix_path(str(tmp_path / "file"))
    assert (tmp_path / "file").exists()
