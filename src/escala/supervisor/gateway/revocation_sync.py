"""Revocations of a running project: written to PostgreSQL first, then enforced by the gateway.

Every supervisor of the same PostgreSQL listens for those that others write. What was missed while a connection was lost
is found when it is there again.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import asyncpg

from escala.errors import EscalaError
from escala.events import Emit, RevocationsUnread
from escala.gateway.haproxy.revocation_maps import Revocations

CHANNEL = "escala_revocation"
RETRY_SECONDS = 0.5
LOOK_SECONDS = 30.0
"""How often expired revocations are forgotten, and what a lost notification costs at most."""

_READ = """
select kind, value, floor(extract(epoch from revoked_at))::bigint as since
from escala.revocation where expires_at > now()
"""
_FORGET = "delete from escala.revocation where expires_at <= now()"
_WRITE = """
insert into escala.revocation (kind, value, expires_at, revoked_at)
values ($1, $2, to_timestamp($3), greatest(now(), to_timestamp($4)))
on conflict (kind, value) do update
set revoked_at = excluded.revoked_at, expires_at = greatest(escala.revocation.expires_at, excluded.expires_at)
"""


class RevocationKeeper:
    """Keeps `revocations` as PostgreSQL has them; `enforce` is awaited after each change."""

    def __init__(
        self, revocations: Revocations, *, url: Callable[[], str], enforce: Callable[[], Awaitable[None]], emit: Emit
    ) -> None:
        self._revocations = revocations
        self._url = url
        self._enforce = enforce
        self._emit = emit
        self._task: asyncio.Task[None] | None = None
        self._unenforced = False
        """Whether the gateway does not have all of them yet."""

    async def load(self) -> None:
        """Read them all, before the gateway takes traffic; raise EscalaError where PostgreSQL does not answer."""
        try:
            connection = await asyncpg.connect(self._url())
            try:
                await self._read(connection)
            finally:
                await connection.close()
        except (asyncpg.PostgresError, OSError) as error:
            raise EscalaError(f"revocations cannot be read from PostgreSQL: {error}") from None

    def start(self) -> None:
        """Follow what others write, until `stop`."""
        self._task = asyncio.create_task(self._follow(), name="revocations")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def add(self, kind: str, value: str, expires_at: float) -> None:
        """Revoke a token (by its `jti`) or all tokens of a user; returns when the gateway refuses them."""
        written = False
        try:
            connection = await asyncpg.connect(self._url())
            try:
                # Tokens have this machine's time, which may be ahead of PostgreSQL's.
                await connection.execute(_WRITE, kind, value, expires_at, time.time())
                written = True
                await connection.execute(f"notify {CHANNEL}")
                await self._read(connection)
            finally:
                await connection.close()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            what = "written down, but not enforced yet" if written else "nothing was revoked"
            raise EscalaError(f"{what}: PostgreSQL does not answer ({error})") from None
        try:
            await self._enforce()
        except (OSError, EscalaError) as error:
            self._unenforced = True
            raise EscalaError(
                f"written down, but the gateway does not take it yet ({str(error) or 'no answer'})"
            ) from None

    async def _follow(self) -> None:
        failing = False
        while True:
            try:
                await self._listen()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, EscalaError, OSError) as error:
                if not failing:
                    self._emit(RevocationsUnread(str(error) or type(error).__name__))
                failing = True
            else:
                failing = False
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self) -> None:
        """Read at once, at every notification, and from time to time; return when the connection is lost."""
        connection = await asyncpg.connect(self._url())
        woken = asyncio.Event()
        connection.add_termination_listener(lambda _: woken.set())
        try:
            await connection.add_listener(CHANNEL, lambda *_: woken.set())
            while not connection.is_closed():
                woken.clear()
                await connection.execute(_FORGET)
                if await self._read(connection) or self._unenforced:
                    self._unenforced = True
                    await self._enforce()
                    self._unenforced = False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await woken.wait()
        finally:
            connection.terminate()

    async def _read(self, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        """Read them all; return whether anything is different."""
        rows = await connection.fetch(_READ)
        tokens = frozenset(str(row["value"]) for row in rows if row["kind"] == "token")
        users = {str(row["value"]): int(row["since"]) for row in rows if row["kind"] == "user"}
        if (tokens, users) == (self._revocations.tokens, self._revocations.users):
            return False
        self._revocations.tokens, self._revocations.users = tokens, users
        return True


def never_later_than(longest: float) -> float:
    """Return when the last token that exists now has expired, if none may be valid for more than `longest` seconds."""
    return time.time() + longest + 1
