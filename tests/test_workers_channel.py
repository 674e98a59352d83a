"""The messages between a supervisor and a worker."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from hr_prometheus.workers.channel import Channel, encode, receive


class End:
    """One end of a channel, which keeps its messages and answers a question with it."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, object]] = []
        self.closed = asyncio.Event()
        self.received = asyncio.Event()
        self.channel = Channel(self.receive, self.answer, self.closed.set)

    def receive(self, kind, value):
        self.messages.append((kind, value))
        self.received.set()

    async def answer(self, kind, value):
        if kind == "fail":
            raise RuntimeError("no answer on purpose")
        if kind == "never":
            await asyncio.Event().wait()
        return f"{kind} {value}".encode()


@pytest.fixture
async def ends():
    """Two ends that are connected."""
    one, other = End(), End()
    first, second = socket.socketpair()
    await one.channel.connect(first)
    await other.channel.connect(second)
    yield one, other
    one.channel.close()
    other.channel.close()
    await asyncio.gather(one.closed.wait(), other.closed.wait())


async def test_messages_and_questions_in_both_directions(ends):
    """Each question gets its own answer, whatever comes in between."""
    one, other = ends
    one.channel.send("note", {"a": [1, None, "\u00e4\udc80"]})
    answers = await asyncio.gather(*(one.channel.ask("q", n) for n in range(50)), other.channel.ask("r", "x" * 100_000))
    assert answers == [*(f"q {n}".encode() for n in range(50)), b"r " + b"x" * 100_000]
    assert other.messages == [("note", {"a": [1, None, "\u00e4\udc80"]})]


async def test_a_message_that_comes_in_pieces():
    """However the bytes are cut."""
    end = End()
    ours, theirs = socket.socketpair()
    with theirs:
        await end.channel.connect(ours)
        for byte in encode("one", [1]) + encode("two", [2], b"payload") + encode("three"):
            end.received.clear()
            theirs.send(bytes([byte]))
        while len(end.messages) < 3:
            await end.received.wait()
            end.received.clear()
    await end.closed.wait()
    assert end.messages == [("one", [1]), ("two", [2]), ("three", None)]


async def test_a_question_that_cannot_be_answered(ends, caplog):
    """The answer is an error, and the other end logs why."""
    with caplog.at_level(logging.ERROR), pytest.raises(ConnectionError, match="has failed to answer"):
        await ends[0].channel.ask("fail")
    assert "no answer on purpose" in caplog.text


async def test_an_end_that_goes_while_it_is_asked(ends):
    """Questions that wait, and those that come later, fail at once."""
    one, other = ends
    question = asyncio.create_task(one.channel.ask("never"))
    await asyncio.sleep(0)
    other.channel.close()
    with pytest.raises(ConnectionError, match="is gone"):
        await question
    with pytest.raises(ConnectionError, match="is gone"):
        await one.channel.ask("q")
    one.channel.send("note")  # it is dropped


def test_receiving_before_there_is_a_loop():
    """One message at a time, and the end of all."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(encode("config", {"x": 1}, b"ignored") + encode("more"))
            assert receive(ours) == ("config", {"x": 1})
            assert receive(ours) == ("more", None)
        with pytest.raises(EOFError):
            receive(ours)
