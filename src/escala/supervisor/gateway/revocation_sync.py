"""Keeps the gateway's revocations in sync with PostgreSQL. A revocation is stored there first, then enforced.

Every supervisor that uses the same PostgreSQL listens for revocations that others write. Those that it missed while it
had no connection are read when it is connected again.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import asyncpg

from escala.auth import revocation_store
from escala.background import BackgroundLoop
from escala.database import Connection
from escala.errors import EngineFailed, EscalaError, RevocationFailed
from escala.events import Emit, RevocationsUnread
from escala.gateway.haproxy.revocation_maps import Revocations

RETRY_SECONDS = 0.5
POLL_SECONDS = 30.0
"""How often expired revocations are deleted. It is also the longest delay that a lost notification can cause."""

_AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


class RevocationSync:
    """`enforce` is awaited after each change of `revocations`."""

    def __init__(
        self, revocations: Revocations, *, url: Callable[[], str], enforce: Callable[[], Awaitable[None]], emit: Emit
    ) -> None:
        self._revocations = revocations
        self._url = url
        self._enforce = enforce
        self._emit = emit
        self._failing = False
        self._unenforced = False
        """Whether some known revocations have not reached the gateway yet."""
        self.loop = BackgroundLoop("revocation sync", self._follow)

    async def load(self) -> None:
        """Read all revocations before the gateway opens; raise EngineFailed if PostgreSQL does not answer."""
        try:
            connection = await asyncpg.connect(self._url())
            try:
                await self._read(connection)
            finally:
                await connection.close()
        except _AWAY as error:
            raise EngineFailed("PostgreSQL", f"revocations cannot be read: {error}") from None

    async def add(self, kind: str, value: str, expires_at: float) -> None:
        """Revoke a token (by its `jti`) or all tokens of a user. Return when the gateway refuses them."""
        written = False
        try:
            connection = await asyncpg.connect(self._url())
            try:
                await revocation_store.write(connection, kind, value, expires_at)
                written = True
                await revocation_store.notify(connection)
                await self._read(connection)
            finally:
                await connection.close()
        except _AWAY as error:
            outcome = "the revocation is stored, but not enforced yet" if written else "nothing was revoked"
            raise RevocationFailed(outcome, f"PostgreSQL does not answer ({error})") from None
        try:
            await self._enforce()
        except (OSError, EscalaError) as error:
            self._unenforced = True
            outcome = "the revocation is stored, but not enforced yet"
            raise RevocationFailed(outcome, f"the gateway did not accept it ({str(error) or 'no answer'})") from None

    async def _follow(self) -> float:
        try:
            await self._listen()
        except (*_AWAY, EscalaError) as error:
            if not self._failing:
                self._emit(RevocationsUnread(str(error) or type(error).__name__))
            self._failing = True
        else:
            self._failing = False
        return RETRY_SECONDS

    async def _listen(self) -> None:
        """Read revocations at once, at every notification, and at intervals. Return when the connection is lost."""
        connection = await asyncpg.connect(self._url())
        woken = asyncio.Event()
        connection.add_termination_listener(lambda _: woken.set())
        try:
            await connection.add_listener(revocation_store.CHANNEL, lambda *_: woken.set())
            while not connection.is_closed():
                woken.clear()
                await revocation_store.forget_expired(connection)
                if await self._read(connection) or self._unenforced:
                    self._unenforced = True
                    await self._enforce()
                    self._unenforced = False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await woken.wait()
        finally:
            connection.terminate()

    async def _read(self, connection: Connection) -> bool:
        """Read all revocations; return whether anything has changed."""
        found = await revocation_store.read(connection)
        if (found.tokens, found.users) == (self._revocations.tokens, self._revocations.users):
            return False
        self._revocations.tokens, self._revocations.users = found.tokens, found.users
        return True


def never_later_than(max_ttl: float) -> float:
    """Return a time at which every token that exists now has expired.

    No token is valid for more than `max_ttl` seconds.
    """
    return time.time() + max_ttl + 1
