"""Checks passwords against bcrypt's hashes, one at a time, so that guesses take one processor at most."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future
from hashlib import blake2b
from secrets import token_bytes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger = logging.getLogger("hr_prometheus")

#: Results that are kept, of right and of wrong passwords.
_MOST_RESULTS = 100
#: Passwords that may wait to be checked.
_MOST_WAITING = 16
#: bcrypt looks at no more bytes, and its package refuses more.
_MOST_BYTES = 72


class TooManyPasswordsError(Exception):
    """Too many passwords wait to be checked."""


class Passwords:
    """Checks passwords in threads, and keeps the latest results, by digests with a key that leaves this process nowhere."""

    def __init__(self) -> None:
        self._key = token_bytes(32)
        self._results: dict[bytes, bool] = {}
        self._checking = asyncio.Lock()
        self._waiting = 0

    async def is_right(
        self,
        users: Mapping[bytes, bytes],
        name: bytes,
        password: bytes,
        is_connected: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Return whether the password is that of the user with this name. *users* are hashes by names, at least one.

        An unknown one costs the time of a wrong password. ``False`` without a check if the client is no longer connected
        when its turn comes. Raises :exc:`TooManyPasswordsError`.
        """
        hashed = users.get(name) or self._decoy(users, name)
        key = self._digest(name, hashed, password)
        if key not in self._results:
            if self._waiting >= _MOST_WAITING:
                raise TooManyPasswordsError
            self._waiting += 1
            try:
                async with self._checking:
                    if key not in self._results:  # others may have waited with the same
                        await asyncio.sleep(0)  # an end that came with the request is read now
                        if not is_connected():
                            return False
                        self._keep(key, await _check_in_thread(password, hashed) and name in users)
            finally:
                self._waiting -= 1
        return self._results[key]

    def _decoy(self, users: Mapping[bytes, bytes], name: bytes) -> bytes:
        """Return one of the hashes, always the same for a name: hashes may differ in their costs."""
        hashes = list(users.values())
        return hashes[int.from_bytes(self._digest(name)) % len(hashes)]

    def _digest(self, *parts: bytes) -> bytes:
        digest = blake2b(key=self._key, digest_size=32)
        for part in parts:
            digest.update(len(part).to_bytes(8))
            digest.update(part)
        return digest.digest()

    def _keep(self, key: bytes, is_right: bool) -> None:
        """Keep a result, in the place of that of a wrong password if there is one."""
        if len(self._results) >= _MOST_RESULTS:
            wrong = (each for each, was_right in self._results.items() if not was_right)
            del self._results[next(wrong, next(iter(self._results)))]
        self._results[key] = is_right


async def _check_in_thread(password: bytes, hashed: bytes) -> bool:
    """Check a password in a thread that the end of the process does not wait for: a costly hash takes minutes."""
    import bcrypt  # noqa: PLC0415  # an extra

    result: Future[bool] = Future()

    def check() -> None:
        try:
            is_right = bcrypt.checkpw(password[:_MOST_BYTES], hashed)
        except ValueError:
            logger.error("A password counts as wrong: bcrypt refuses its user's hash.")  # noqa: TRY400  # errors may have it
            result.set_result(False)
        except Exception as error:  # noqa: BLE001  # raised where it is waited for
            result.set_exception(error)
        else:
            result.set_result(is_right)

    threading.Thread(target=check, name="hr-prometheus-password", daemon=True).start()
    return await asyncio.wrap_future(result)
