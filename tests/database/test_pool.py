"""The pool on a PostgreSQL of its own, which it survives."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from escala import database
from escala.database import Database
from escala.database import pool as pool_module
from escala.engines import postgres_engine
from escala.errors import DatabaseUnavailable, NotConnected, PoolExhausted
from escala.project.layout import Layout
from tests.support import minimal_config, start_engine, stop_engine


@pytest.fixture
async def connected(postgres_url: str) -> AsyncIterator[Database]:
    made = Database(postgres_url)
    await made.open()
    yield made
    await made.close()


async def test_json_columns_hold_python_values(connected: Database) -> None:
    async with connected.connection() as connection:
        value = {"a": [1, 2.5, None, "ä"]}
        assert await connection.fetchval("select $1::jsonb", value) == value


async def test_errors_of_the_statement_pass_through(connected: Database) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        async with connected.connection() as connection:
            await connection.fetch("select * from nowhere")
    async with connected.connection() as connection:
        assert await connection.fetchval("select 1") == 1


async def test_a_session_ended_by_the_server_is_unavailable_and_then_replaced(connected: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with connected.connection() as connection:
            await connection.execute("select pg_terminate_backend(pg_backend_pid())")
    async with connected.connection() as connection:
        assert await connection.fetchval("select 1") == 1


async def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "PATIENCE", 0.2)
    away = Database("postgresql://postgres@/postgres?host=/nowhere")
    await away.open()
    with pytest.raises(DatabaseUnavailable, match="try again"):
        async with away.connection():
            pass
    await away.close()


async def test_unconnected() -> None:
    with pytest.raises(NotConnected, match="lifespan"):
        async with database.connection():
            pass


async def test_a_restart_is_waited_out(folder: Path) -> None:
    layout = Layout(folder / "s")
    layout.create()
    engine = postgres_engine(minimal_config(), layout)
    await asyncio.to_thread(engine.prepare)
    server = await asyncio.to_thread(start_engine, engine)
    made = Database(engine.url)
    await made.open()

    async def ask() -> int:
        async with made.connection() as connection:
            return int(await connection.fetchval("select 1"))

    try:
        assert await ask() == 1
        server.kill()
        server.wait()
        with pytest.raises(DatabaseUnavailable):  # the connection at hand died with the server
            await ask()
        asking = asyncio.create_task(ask())
        await asyncio.to_thread(engine.prepare)
        server = await asyncio.to_thread(start_engine, engine)
        assert await asking == 1
    finally:
        await made.close()
        await asyncio.to_thread(stop_engine, engine, server)


async def test_a_pool_that_is_used_up_says_so(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that PostgreSQL did not answer: the remedy is another one."""
    monkeypatch.setattr(pool_module, "PATIENCE", 0.2)
    small = Database(postgres_url, size=2)
    await small.open()
    async with small.connection(), small.connection():
        with pytest.raises(PoolExhausted, match=r"all 2 connections .* database\.pool"):
            async with small.connection():
                pass
    async with small.connection() as connection:
        assert await connection.fetchval("select 1") == 1
    await small.close()
