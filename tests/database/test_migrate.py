import asyncio
import importlib
from importlib import resources
from typing import Any

import asyncpg
import pytest

from escala.database.migrate import migrate
from escala.errors import EngineFailed
from escala.tasks.store.workers import rescue_expired

module = importlib.import_module("escala.database.migrate")

ALL = ["0001_jobs.sql", "0002_revocations.sql", "0003_jobs.sql", "0003_jobs.post.sql"]


async def fresh_database(url: str, name: str) -> str:
    connection = await asyncpg.connect(url)
    await connection.execute(f"drop database if exists {name}")
    await connection.execute(f"create database {name}")
    await connection.close()
    return url.replace("/postgres?", f"/{name}?")


async def test_each_file_once(postgres_url: str) -> None:
    url = await fresh_database(postgres_url, "migrating")
    connection = await asyncpg.connect(url)
    assert await migrate(connection) == ALL
    assert await migrate(connection) == []
    assert await connection.fetchval("select count(*) from escala.job") == 0
    await connection.close()


async def test_two_at_a_time(postgres_url: str) -> None:
    url = await fresh_database(postgres_url, "racing")
    connections = [await asyncpg.connect(url) for _ in range(4)]
    applied = await asyncio.gather(*map(migrate, connections))
    assert sorted(applied) == [[], [], [], ALL]
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
    assert await migrate(connection) == ALL
    await connection.close()


async def columns(connection: "asyncpg.Connection[Any]") -> set[str]:
    rows = await connection.fetch("select column_name from information_schema.columns where table_name = 'job'")
    return {row[0] for row in rows}


async def test_what_the_earlier_version_needs_is_removed_a_day_later(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database of the earlier version, with a job that waits and one whose worker died."""
    url = await fresh_database(postgres_url, "updating")
    connection = await asyncpg.connect(url)
    folder = resources.files("escala.database") / "migrations"
    await connection.execute("create schema escala")
    await connection.execute(
        "create table escala.migration (name text primary key, applied_at timestamptz not null default now())"
    )
    for name in ALL[:2]:
        await connection.execute((folder / name).read_text())
        await connection.execute("insert into escala.migration (name) values ($1)", name)
    await connection.execute(
        """insert into escala.job (task, arguments, retries, state, owner, lease_until) values
           ('a', '{"x": 1}', 1, 'waiting', null, null), ('b', '{}', 1, 'running', gen_random_uuid(), now())"""
    )
    assert await migrate(connection) == ["0003_jobs.sql"]
    assert "lease_until" in await columns(connection)
    rescued = await rescue_expired(connection)
    assert (len(rescued.again), len(rescued.poison)) == (1, 0)
    assert await migrate(connection) == []
    await connection.execute("update escala.migration set applied_at = now() - interval '25 hours'")
    assert await migrate(connection) == ["0003_jobs.post.sql"]
    assert "lease_until" not in await columns(connection)
    rows = await connection.fetch("select task, state, arguments::text from escala.job order by seq")
    assert [tuple(row) for row in rows] == [("a", "waiting", '{"x": 1}'), ("b", "suspect", "{}")]
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
