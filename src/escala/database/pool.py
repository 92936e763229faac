"""Connections to PostgreSQL."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg
import asyncpg.pool
import msgspec

from escala.errors import DatabaseUnavailable, PoolExhausted
from escala.holder import ConnectionHolder

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]
    Lent: TypeAlias = asyncpg.pool.PoolConnectionProxy[Any]
    Pool: TypeAlias = asyncpg.Pool[Any]
else:
    Connection = asyncpg.Connection
    Lent = asyncpg.pool.PoolConnectionProxy
    Pool = asyncpg.Pool

log = logging.getLogger("escala.database")

PATIENCE = 5.0
"""The maximum number of seconds that a caller waits for a connection, for example while PostgreSQL restarts."""

_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
)


@dataclass
class _Loan:
    """A connection that a block has, and what is to be done when its transaction has ended."""

    connection: Lent
    outer: "_Loan | None"
    """The loan of a block around this one."""
    afterwards: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    returned: bool = False

    def chain(self) -> "list[_Loan]":
        """Return this loan and those around it, the outermost first."""
        return [*(self.outer.chain() if self.outer else []), self]


_loan: ContextVar[_Loan | None] = ContextVar("loan", default=None)


class Database:
    """A pool of at most `size` connections. It connects on demand and survives restarts of PostgreSQL."""

    def __init__(self, url: str, size: int = 10) -> None:
        self._url = url
        self._size = size
        self._pool: Pool | None = None

    async def open(self) -> None:
        """Create the pool. It connects on first use."""
        self._pool = await asyncpg.create_pool(self._url, min_size=0, max_size=self._size, init=_use_msgspec)

    async def close(self) -> None:
        """Close the pool. Running statements get two seconds to finish."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(2):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()
        self._pool = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection until the end of the block.

        Raises DatabaseUnavailable if PostgreSQL stays unavailable for PATIENCE seconds, or if the connection breaks
        inside the block. Raises PoolExhausted if all connections of this process are in use for that long.
        """
        assert self._pool is not None
        connection = await self._acquire(self._pool)
        loan = _Loan(connection, _loan.get())
        _loan.set(loan)
        failed = True
        try:
            yield connection
            failed = False
        except (asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError) as error:
            raise DatabaseUnavailable(_words(error)) from error
        except asyncpg.InternalClientError as error:  # the connection broke at a bad moment; nobody knows its state
            connection.terminate()
            raise DatabaseUnavailable(_words(error)) from error
        except asyncpg.InterfaceError as error:
            if not connection.is_closed():
                raise
            raise DatabaseUnavailable(_words(error)) from error
        finally:
            _loan.set(loan.outer)
            loan.returned = True
            if not loan.afterwards:
                await self._pool.release(connection)
            else:
                # A caller that is cancelled here must not take along what is to be done after its transaction.
                failure = await asyncio.shield(asyncio.ensure_future(_give_back(self._pool, loan)))
                if failure is not None and not failed:
                    raise failure

    async def _acquire(self, pool: Pool) -> Lent:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return await pool.acquire(timeout=PATIENCE)
            except _AWAY as error:
                if isinstance(error, TimeoutError) and pool.get_size() == self._size and not pool.get_idle_size():
                    raise PoolExhausted(_words(error), self._size, PATIENCE) from error
                if time.monotonic() >= deadline:
                    raise DatabaseUnavailable(_words(error)) from error
                await asyncio.sleep(0.05)


async def _give_back(pool: Pool, loan: _Loan) -> BaseException | None:
    """Release a connection, and do what waits for that: also after a rollback, as an earlier transaction may count.

    All of it is tried. Return the first exception, which is logged, too.
    """
    works = (pool.release(loan.connection), *(work() for work in loan.afterwards))
    failures: list[BaseException] = []
    for work in works:
        try:
            await work
        except Exception as error:
            log.warning("after a transaction: %s: %s", type(error).__name__, error)
            failures.append(error)
    return failures[0] if failures else None


async def _use_msgspec(connection: Connection) -> None:
    """Convert json and jsonb columns to and from Python values with msgspec."""
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(
            kind,
            schema="pg_catalog",
            encoder=lambda value: msgspec.json.encode(value).decode(),
            decoder=msgspec.json.decode,
        )


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


slot: ConnectionHolder[Database] = ConnectionHolder("the database")


@asynccontextmanager
async def connection() -> AsyncIterator[Connection]:
    """Lend a connection from the app's pool: ``async with database.connection() as c: await c.fetch(...)``.

    The block receives an asyncpg connection, and returns it to the pool at its end. There is no implicit transaction:
    use ``c.transaction()``. Values of json and jsonb columns are Python values.

    Raises NotConnected before `escala.lifespan` or `escala.running` has connected the database. Raises
    DatabaseUnavailable if PostgreSQL stays unavailable for five seconds, or if the connection breaks inside the block.
    Raises PoolExhausted, a kind of DatabaseUnavailable, if all connections of this process are in use for five seconds.
    `problem.handlers` answers DatabaseUnavailable with 503.
    """
    async with slot.get().connection() as lent:
        yield lent


@asynccontextmanager
async def transaction() -> AsyncIterator[Connection]:
    """Lend a connection in a transaction: it is committed at the end of the block, or rolled back by an exception.

    Cache invalidations inside the block take place after that. Errors are those of `connection`.
    """
    async with slot.get().connection() as lent, lent.transaction():
        yield lent


def after_commit(work: Callable[[], Awaitable[None]]) -> bool:
    """Let `work` run when the transaction of the caller has ended; return whether there is one.

    It runs at the end of the block that lent the connection, after a rollback too.
    """
    loan = _loan.get()
    for each in loan.chain() if loan is not None else ():
        if not each.returned and each.connection.is_in_transaction():
            each.afterwards.append(work)
            return True
    return False
