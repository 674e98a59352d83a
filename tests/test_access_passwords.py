from __future__ import annotations

import asyncio
import threading

import bcrypt
import pytest
from conftest import DEADLINE, until

from hr_prometheus.access import passwords
from hr_prometheus.access.passwords import Passwords, TooManyPasswordsError


def hashed(password, cost=4):
    return bcrypt.hashpw(password, bcrypt.gensalt(cost))


@pytest.fixture
def checks(monkeypatch):
    """The passwords that bcrypt has been asked for, and how many at a time at most."""
    check, asked, lock = bcrypt.checkpw, [], threading.Lock()

    def note(password, hashed_password):
        assert lock.acquire(blocking=False), "two at a time"
        try:
            asked.append(password)
            return check(password, hashed_password)
        finally:
            lock.release()

    monkeypatch.setattr(bcrypt, "checkpw", note)
    return asked


async def test_right_and_wrong_passwords(checks):
    """Each is checked once, whether it is right or not, and for its user only."""
    users = {b"alice": hashed(b"a"), "b\xf6b".encode(): hashed("p\xe4ss".encode())}
    checked = Passwords()
    for _ in range(2):
        assert await checked.is_right(users, b"alice", b"a")
        assert await checked.is_right(users, "b\xf6b".encode(), "p\xe4ss".encode())
        assert not await checked.is_right(users, b"alice", "p\xe4ss".encode())
        assert not await checked.is_right(users, b"alice", b"")
        assert not await checked.is_right(users, b"a", b"lice")
    assert len(checks) == 5


async def test_a_hash_that_bcrypt_refuses(caplog):
    """A password of it is wrong, and one error says so without the hash."""
    checked = Passwords()
    for _ in range(2):
        assert not await checked.is_right({b"alice": b"$2b$04$" + b"z" * 53}, b"alice", b"a")
    assert caplog.messages == ["A password counts as wrong: bcrypt refuses its user's hash."]


async def test_another_hash(checks):
    """A result is not kept beyond the password that a user had."""
    checked = Passwords()
    assert await checked.is_right({b"alice": hashed(b"a")}, b"alice", b"a")
    assert not await checked.is_right({b"alice": hashed(b"b")}, b"alice", b"a")


async def test_long_passwords():
    """Their first 72 bytes decide, as elsewhere; there may be zeros among them."""
    users = {b"alice": hashed(b"x" * 72)}
    assert await Passwords().is_right(users, b"alice", b"x" * 100)
    assert not await Passwords().is_right(users, b"alice", b"x" * 71)
    assert not await Passwords().is_right(users, b"alice", b"x\0x")


async def test_an_unknown_user(checks):
    """A password is checked for it as well, and never right, even if it is that of another."""
    users = {b"alice": hashed(b"a")}
    for name in (b"eve", b"", b"Alice"):
        assert not await Passwords().is_right(users, name, b"a")
    assert checks == [b"a"] * 3


async def test_an_unknown_user_costs_the_same(monkeypatch):
    """The time is that of a wrong password, as the hash is that of a user; a name has always the same one."""
    asked = []
    monkeypatch.setattr(bcrypt, "checkpw", lambda _password, hashed_password: asked.append(hashed_password) or True)
    users = {b"%d" % number: b"hash %d" % number for number in range(3)}
    checked = Passwords()
    for number in range(40):
        assert not await checked.is_right(users, b"eve %d" % number, b"a")
        assert not await checked.is_right(users, b"eve %d" % number, b"b")
    assert asked[::2] == asked[1::2]
    assert set(asked) == set(users.values())


async def test_a_hundred_results(checks):
    """Wrong passwords without end take the place of each other, and never that of a right one."""
    users = {b"alice": hashed(b"a")}
    checked = Passwords()
    assert await checked.is_right(users, b"alice", b"a")
    for number in range(150):
        assert not await checked.is_right(users, b"alice", b"%d" % number)
    assert len(checks) == 151
    for number in (149, 60):
        assert not await checked.is_right(users, b"alice", b"%d" % number)
    assert await checked.is_right(users, b"alice", b"a")
    assert len(checks) == 151
    assert not await checked.is_right(users, b"alice", b"0")
    assert len(checks) == 152


async def test_many_at_once(checks, monkeypatch):
    """One is checked at a time, the same only once, and some may wait; the event loop goes on meanwhile."""
    monkeypatch.setattr(passwords, "_MOST_WAITING", 4)
    users = {b"alice": hashed(b"a", 8)}
    checked = Passwords()
    turns = 0

    async def count_turns():
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    counting = asyncio.create_task(count_turns())
    given = [b"a", b"1", b"1", b"2", b"3", b"4"]
    async with asyncio.timeout(DEADLINE):
        results = await asyncio.gather(
            *(checked.is_right(users, b"alice", each) for each in given), return_exceptions=True
        )
    counting.cancel()
    assert results[:4] == [True, False, False, False]
    assert [type(each) for each in results[4:]] == [TooManyPasswordsError] * 2
    assert checks == [b"a", b"1", b"2"]
    assert turns > 3
    assert not await checked.is_right(users, b"alice", b"3")


async def test_a_hash_that_cannot_be_checked(monkeypatch):
    """Whatever else bcrypt raises is raised where the password was asked for, and the next one is checked."""
    check = bcrypt.checkpw

    def fail(_password, _hashed):
        raise RuntimeError("on purpose")

    users, checked = {b"alice": hashed(b"a")}, Passwords()
    monkeypatch.setattr(bcrypt, "checkpw", fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        await checked.is_right(users, b"alice", b"a")
    monkeypatch.setattr(bcrypt, "checkpw", check)
    assert await checked.is_right(users, b"alice", b"a")


async def test_no_plain_password_is_kept():
    """What is kept of one is a digest."""
    checked = Passwords()
    await checked.is_right({b"alice": hashed(b"a")}, b"alice", b"some password")
    threads = [each for each in threading.enumerate() if each.name == "hr-prometheus-password"]
    await until(lambda: not any(each.is_alive() for each in threads))
    assert b"some password" not in b"".join(checked._results)
