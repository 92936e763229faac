import asyncio
import importlib
from typing import Any

import asyncpg
import pytest

from escala.database.migrate import migrate
from escala.errors import EngineFailed

module = importlib.import_module("escala.database.migrate")


async def fresh_database(url: str, name: str) -> str:
    connection = await asyncpg.connect(url)
    await connection.execute(f"drop database if exists {name}")
    await connection.execute(f"create database {name}")
    await connection.close()
    return url.replace("/postgres?", f"/{name}?")


async def test_each_file_once(postgres_url: str) -> None:
    url = await fresh_database(postgres_url, "migrating")
    connection = await asyncpg.connect(url)
    assert await migrate(connection) == ["0001_jobs.sql", "0002_revocations.sql"]
    assert await migrate(connection) == []
    assert await connection.fetchval("select count(*) from escala.job") == 0
    await connection.close()


async def test_two_at_a_time(postgres_url: str) -> None:
    url = await fresh_database(postgres_url, "racing")
    connections = [await asyncpg.connect(url) for _ in range(4)]
    applied = await asyncio.gather(*map(migrate, connections))
    assert sorted(applied) == [[], [], [], ["0001_jobs.sql", "0002_revocations.sql"]]
    for connection in connections:
        await connection.close()


async def test_somebody_who_migrates_for_ever_is_not_waited_for_for_ever(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.3)
    url = await fresh_database(postgres_url, "locked")
    other, connection = [await asyncpg.connect(url) for _ in range(2)]
    await other.execute("select pg_advisory_lock($1)", module._LOCK)
    with pytest.raises(EngineFailed, match=r"another session has been migrating .* pg_locks"):
        await migrate(connection)
    await other.close()
    assert await migrate(connection) == ["0001_jobs.sql", "0002_revocations.sql"]
    await connection.close()


class Breaking:
    """A connection that is lost in the middle."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def execute(self, statement: str, *arguments: object) -> object:
        if statement.startswith("create schema"):
            statement = "select pg_terminate_backend(pg_backend_pid())"
        return await self._connection.execute(statement, *arguments)


async def test_the_first_error_is_told_where_the_connection_breaks(postgres_url: str) -> None:
    """Not the one of giving the lock back."""
    url = await fresh_database(postgres_url, "breaking")
    with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
        await migrate(Breaking(await asyncpg.connect(url)))  # type: ignore[arg-type]
