"""The messages between the supervisor and a worker, over a pair of connected sockets.

A message is a kind, a number and a JSON value, and may carry bytes: two lengths of four bytes each, the JSON of
``[kind, number, value]``, the bytes. A question has a number other than 0, and its answer has the same one.
End-of-file says that the other process is gone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from itertools import count
from typing import TYPE_CHECKING, Any, Final, cast

from hr_prometheus.workers.tasks import BackgroundTasks

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

logger = logging.getLogger("hr_prometheus")

_LENGTHS: Final = struct.Struct("!II")
_ANSWER, _NO_ANSWER = "answer", "no answer"


def encode(kind: str, value: object = None, payload: bytes = b"", *, number: int = 0) -> bytes:
    """Return the bytes of a message."""
    head = json.dumps([kind, number, value]).encode()
    return _LENGTHS.pack(len(head), len(payload)) + head + payload


def receive(connection: socket.socket) -> tuple[str, Any]:
    """Return the next message's kind and value, without an event loop; raise :exc:`EOFError` at the end."""
    head, payload = _LENGTHS.unpack(_read(connection, _LENGTHS.size))
    kind, _, value = json.loads(_read(connection, head))
    _read(connection, payload)
    return kind, value


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


class Channel(asyncio.Protocol):
    """One end of the connection.

    *on_message* is called with the kind and value of each message, *on_question* with those of each question, for the
    bytes of the answer, and *on_close* when the other process is gone.
    """

    def __init__(
        self,
        on_message: Callable[[str, Any], None],
        on_question: Callable[[str, Any], Awaitable[bytes]],
        on_close: Callable[[], None],
    ) -> None:
        self._on_message, self._on_question, self._on_close = on_message, on_question, on_close
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = bytearray()
        self._numbers = count(1)
        self._questions: dict[int, asyncio.Future[bytes]] = {}
        self._tasks = BackgroundTasks()

    async def connect(self, connection: socket.socket) -> None:
        """Begin to receive and send; *connection* belongs to the channel from now on."""
        connection.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=connection)

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, kind: str, value: object = None, payload: bytes = b"", *, number: int = 0) -> None:
        """Send a message; one to a process that is gone is dropped."""
        if self._transport is not None and self.is_open:
            self._transport.write(encode(kind, value, payload, number=number))

    async def ask(self, kind: str, value: object = None) -> bytes:
        """Return the answer to a question; raise :exc:`ConnectionError` if there will be none."""
        if self._transport is None:
            raise ConnectionError("the other process is gone")
        number = next(self._numbers)
        question: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._questions[number] = question
        self.send(kind, value, number=number)
        try:
            return await question
        finally:
            del self._questions[number]

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport. Called by the event loop."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's does not inherit it

    def connection_lost(self, _exception: Exception | None) -> None:
        """Fail the questions that wait. Called by the event loop."""
        self._transport = None
        for question in self._questions.values():
            if not question.done():
                question.set_exception(ConnectionError("the other process is gone"))
        self._on_close()

    def data_received(self, data: bytes) -> None:
        """Receive the messages that are complete. Called by the event loop."""
        self._buffer += data
        while len(self._buffer) >= _LENGTHS.size:
            head, payload = _LENGTHS.unpack_from(self._buffer)
            begin = _LENGTHS.size + head
            if len(self._buffer) < begin + payload:
                return
            kind, number, value = json.loads(self._buffer[_LENGTHS.size : begin])
            content = bytes(self._buffer[begin : begin + payload])
            del self._buffer[: begin + payload]
            self._receive(kind, number, value, content)

    def _receive(self, kind: str, number: int, value: Any, content: bytes) -> None:
        if number == 0:
            self._on_message(kind, value)
        elif kind not in (_ANSWER, _NO_ANSWER):
            self._tasks.start(self._answer(kind, number, value))
        elif (question := self._questions.get(number)) is not None and not question.done():
            if kind == _ANSWER:
                question.set_result(content)
            else:
                question.set_exception(ConnectionError(value))

    async def _answer(self, kind: str, number: int, value: Any) -> None:
        try:
            self.send(_ANSWER, None, await self._on_question(kind, value), number=number)
        except ConnectionError as error:  # its way to refuse an answer, with a reason
            self.send(_NO_ANSWER, str(error), number=number)
        except Exception:
            logger.exception('The question "%s" could not be answered.', kind)
            self.send(_NO_ANSWER, "the other process has failed to answer", number=number)
