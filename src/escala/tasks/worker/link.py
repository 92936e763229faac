"""A connection to PostgreSQL for one duty of a worker, made anew when it breaks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from escala.database import Connection
from escala.errors import DatabaseUnavailable

_PATIENCE = 10.0
"""Seconds that a connection or a statement may take."""

FAILURES = (
    DatabaseUnavailable,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # when the connection breaks at a bad moment
    OSError,
    TimeoutError,
)
"""What a duty may meet and has to outlive: PostgreSQL is away, refuses for now, or takes too long."""


class Link:
    """Not from a pool: a pool resets a connection each time, which takes as long as the statement itself."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: asyncpg.Connection[Any] | None = None
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        """Lend the connection. Any of FAILURES may be raised."""
        async with self._turn:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._connect()
            try:
                yield self._connection
            except BaseException as error:
                # After an error of the server the connection can be used again; after any other, nobody knows.
                if not isinstance(error, asyncpg.PostgresError) or isinstance(error, asyncpg.PostgresConnectionError):
                    self._drop()
                raise

    async def connect(self) -> "asyncpg.Connection[Any]":
        """Connect if need be, and return the connection: for listening."""
        async with self._turn:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._connect()
            return self._connection

    async def close(self) -> None:
        if self._connection is not None and not self._connection.is_closed():
            with contextlib.suppress(*FAILURES):
                await self._connection.close(timeout=1)
        self._connection = None

    async def _connect(self) -> "asyncpg.Connection[Any]":
        return await asyncpg.connect(
            self._url,
            timeout=_PATIENCE,
            command_timeout=_PATIENCE,
            server_settings={"application_name": f"escala {self._name}"},
        )

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None
