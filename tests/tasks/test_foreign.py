"""Jobs on connections of other libraries: each exists exactly if the caller's transaction is committed."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import escala
from escala import task
from escala.database import Database
from escala.environment import Environment
from escala.errors import CalledOnLoop, NotConnected
from escala.tasks.store import jobs

AWKWARD = 'it\'s 100% {sure}: \\ "q" \n\t :p1 $1 %s ñ \U0001f600'


@task(queue="q")
async def work(text: str = "x") -> None: ...


@task(queue="q", unique=True)
async def single(text: str = "x") -> None: ...


async def texts(pool: Database) -> list[str]:
    async with pool.connection() as connection:
        rows = await connection.fetch("select arguments from escala.job order by seq")
    return [row[0]["text"] for row in rows]


@pytest.fixture(params=["asyncpg", "psycopg"])
async def engine(request: pytest.FixtureRequest, empty_queue: str) -> AsyncIterator[AsyncEngine]:
    """SQLAlchemy on either driver."""
    host = empty_queue.partition("host=")[2]
    made = create_async_engine(f"postgresql+{request.param}://postgres@/postgres?host={host}")
    yield made
    await made.dispose()


async def test_an_async_session_of_sqlalchemy(engine: AsyncEngine, pool: Database) -> None:
    async with AsyncSession(engine) as session:
        await work.with_options(connection=session).enqueue("gone")
        await session.rollback()
        job = await work.with_options(connection=session, after="1h", priority=3).enqueue(AWKWARD)
        await work.with_options(connection=session).enqueue_many([{"text": str(n)} for n in range(3)])
        assert await texts(pool) == []
        await session.commit()
    assert await texts(pool) == [AWKWARD, "0", "1", "2"]
    async with pool.connection() as connection:
        record = await jobs.find(connection, uuid.UUID(job.id))
    assert record is not None
    assert (record.state, record.priority, record.queue) == ("scheduled", 3, "q")


async def test_an_async_connection_of_sqlalchemy(engine: AsyncEngine, pool: Database) -> None:
    async with engine.begin() as connection:
        await work.with_options(connection=connection).enqueue("a")
        assert await texts(pool) == []
    assert await texts(pool) == ["a"]


async def test_an_async_connection_of_psycopg(empty_queue: str, pool: Database) -> None:
    async with await psycopg.AsyncConnection.connect(empty_queue) as connection:
        await work.with_options(connection=connection).enqueue(AWKWARD)
        first = await single.with_options(connection=connection).enqueue("s")
        again = await single.with_options(connection=connection).enqueue("s")
        assert (first.is_new, again.is_new, again.id) == (True, False, first.id)
        assert await texts(pool) == []
        await connection.commit()
    assert await texts(pool) == [AWKWARD, "s"]


@pytest.fixture
def sync_engine(empty_queue: str) -> Iterator[sqlalchemy.Engine]:
    host = empty_queue.partition("host=")[2]
    made = sqlalchemy.create_engine(f"postgresql+psycopg://postgres@/postgres?host={host}")
    yield made
    made.dispose()


async def test_plain_sessions_and_connections(sync_engine: sqlalchemy.Engine, empty_queue: str, pool: Database) -> None:
    def plain() -> None:
        with Session(sync_engine) as session:
            work.with_options(connection=session).enqueue_sync("gone")
            session.rollback()
            work.with_options(connection=session).enqueue_sync(AWKWARD)
            assert single.with_options(connection=session).enqueue_sync("s").is_new
            assert not single.with_options(connection=session).enqueue_sync("s").is_new
            session.commit()
        with sync_engine.begin() as connection:
            work.with_options(connection=connection).enqueue_many_sync([{"text": "a"}, {"text": "b"}])
        with psycopg.connect(empty_queue) as raw:
            work.with_options(connection=raw).enqueue_sync(AWKWARD)
            raw.rollback()
            work.with_options(connection=raw).enqueue_sync("c")

    await asyncio.to_thread(plain)
    assert await texts(pool) == [AWKWARD, "s", "a", "b", "c"]


async def test_django(empty_queue: str, pool: Database) -> None:
    """In `transaction.atomic`, without `on_commit`."""

    def plain() -> None:
        import django
        from django.conf import settings
        from django.db import connections, transaction

        host = empty_queue.partition("host=")[2]
        database = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "postgres", "HOST": host}
        if not settings.configured:
            settings.configure()
        django.setup()
        connections.settings = connections.configure_settings({"default": database})
        connection = connections["default"]

        try:
            with transaction.atomic():
                work.with_options(connection=connection).enqueue_sync("gone")
                transaction.set_rollback(True)
            with transaction.atomic():
                work.with_options(connection=connection).enqueue_sync(AWKWARD)
        finally:
            connection.close()

    await asyncio.to_thread(plain)
    assert await texts(pool) == [AWKWARD]


async def test_plain_code_without_a_connection(empty_queue: str) -> None:
    async with escala.running(Environment(postgres=empty_queue)):
        job = await asyncio.to_thread(work.enqueue_sync, "a")
        await asyncio.to_thread(work.enqueue_many_sync, [{"text": "b"}])
        with pytest.raises(CalledOnLoop):
            work.enqueue_sync("c")
        async with escala.database.connection() as connection:
            assert await jobs.find(connection, uuid.UUID(job.id)) is not None
            assert (await jobs.count(connection)).waiting == 2
    with pytest.raises(NotConnected):
        work.enqueue_sync("d")


async def test_connections_of_the_wrong_kind(sync_engine: sqlalchemy.Engine, empty_queue: str, pool: Database) -> None:
    with Session(sync_engine) as session, pytest.raises(TypeError, match="a Session is not async; use enqueue_sync"):
        await work.with_options(connection=session).enqueue("a")
    async with await psycopg.AsyncConnection.connect(empty_queue) as connection:
        with pytest.raises(TypeError, match="a AsyncConnection is async; use enqueue"):
            work.with_options(connection=connection).enqueue_sync("a")
    async with pool.connection() as lent:
        with pytest.raises(TypeError, match="is async; use enqueue"):
            work.with_options(connection=lent).enqueue_sync("a")
    wrong: Any = object()
    with pytest.raises(TypeError, match="a object is no connection that is known here"):
        await work.with_options(connection=wrong).enqueue("a")
