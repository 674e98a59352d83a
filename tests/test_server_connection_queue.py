from __future__ import annotations

import pytest

from hr_prometheus.server import connection_queue
from hr_prometheus.server.connection_queue import ConnectionQueue


class Connection:
    """One that notes its end."""

    is_closed = False
    sent: bytes | None = None  # what has come, empty at the end

    def recv(self, _size, _flags):
        if self.sent is None:
            raise BlockingIOError
        return self.sent

    def close(self):
        self.is_closed = True


@pytest.fixture
def queue():
    return ConnectionQueue()


def add(queue, address, number=1):
    connections = [Connection() for _ in range(number)]
    for each in connections:
        queue.add(address, each)
    return connections


def test_addresses_take_turns(queue):
    """Each gives its newest, and no address waits for two of another."""
    a, b, c = add(queue, "a", 3), add(queue, "b", 2), add(queue, "c", 1)
    taken = [queue.take() for _ in range(3)]
    taken += [queue.take(), *(add(queue, "c", 1)), *(queue.take() for _ in range(3))]
    assert taken[:3] == [a[2], b[1], c[0]]
    assert taken[3] == a[1]
    assert taken[5:] == [b[0], a[0], taken[4]]
    assert not queue


def test_who_has_left_has_no_turn(queue):
    """Probes connect and close at once; a request whose client has left may be read."""
    probes, scrape, asked, reset = add(queue, "a", 3), add(queue, "a"), add(queue, "a"), add(queue, "b")
    for each in probes:
        each.sent = b""
    asked[0].sent = b"G"
    reset[0].recv = lambda *_: (_ for _ in ()).throw(ConnectionResetError)
    assert [queue.take() for _ in range(3)] == [*asked, *scrape, None]
    assert all(each.is_closed for each in (*probes, *reset))
    assert not queue


def test_a_flood_displaces_itself(queue, monkeypatch):
    """One too many closes the oldest of the address that has the most."""
    monkeypatch.setattr(connection_queue, "MOST_WAITING", 10)
    first, others = add(queue, "first"), add(queue, "other", 2)
    flood = add(queue, "flood", 100)
    last = add(queue, "last")
    assert len(queue) == 10
    assert [each.is_closed for each in flood] == [True] * 94 + [False] * 6
    assert not any(each.is_closed for each in (*first, *others, *last))
    assert [queue.take() for _ in range(4)] == [*first, others[1], flood[-1], *last]


def test_the_end(queue):
    """It closes all that wait."""
    connections = add(queue, "a", 3) + add(queue, "b")
    queue.close()
    assert all(each.is_closed for each in connections)
    assert not queue
