"""Invalidations inside a transaction take place after it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from escala import database
from escala.cache import Cache, CacheSystem
from escala.database import Database
from escala.errors import CacheUnavailable
from tests.cache.systems import acting_as, system, unique
from tests.support import eventually

things = Cache("things", jitter=0)


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[None]:
    made = Database(postgres_url, 5)
    await made.open()
    database.slot.fill(made)
    async with database.connection() as connection:
        await connection.execute("drop table if exists counters; create table counters (value int)")
        await connection.execute("insert into counters values (1)")
    yield
    database.slot.empty()
    await made.close()


def counter() -> Any:
    @things.cached(name=unique(), tags=["counter"])
    async def value() -> int:
        async with database.connection() as connection:
            return int(await connection.fetchval("select value from counters"))

    return value


@pytest.mark.usefixtures("pool")
async def test_an_invalidation_takes_place_after_the_commit(connected: CacheSystem) -> None:
    value = counter()
    assert await value() == 1
    async with database.transaction() as connection:
        await connection.execute("update counters set value = 2")
        await things.invalidate("counter")
        assert connected.counts["things"].invalidations == 0
        assert await value() == 1  # others still see this, and so does a load now
    assert connected.counts["things"].invalidations == 1
    assert await value() == 2


@pytest.mark.usefixtures("pool")
async def test_a_transaction_of_ones_own_on_a_lent_connection(connected: CacheSystem) -> None:
    value = counter()
    await value()
    async with database.connection() as connection:
        async with connection.transaction():
            await connection.execute("update counters set value = 3")
            await value.delete()
        assert connected.counts["things"].invalidations == 0
    assert await value() == 3
    async with database.connection() as connection:
        await things.invalidate("counter")  # there is no transaction
        assert connected.counts["things"].invalidations == 2


@pytest.mark.usefixtures("pool")
async def test_a_helper_with_a_connection_of_its_own(connected: CacheSystem) -> None:
    async def helper() -> None:
        async with database.connection():
            await things.invalidate("counter")

    async with database.transaction():
        await helper()
        assert connected.counts["things"].invalidations == 0
    assert connected.counts["things"].invalidations == 1


@pytest.mark.usefixtures("pool")
async def test_a_caller_that_is_cancelled_after_its_commit(
    connected: CacheSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = counter()
    assert await value() == 1
    release = asyncpg.pool.Pool.release
    releasing = asyncio.Event()

    async def slow(pool: Any, connection: Any, **options: Any) -> None:
        releasing.set()
        await asyncio.sleep(0.1)
        await release(pool, connection, **options)

    async def change() -> None:
        async with database.transaction() as connection:
            await connection.execute("update counters set value = 6")
            await things.invalidate("counter")

    with monkeypatch.context() as patch:
        patch.setattr(asyncpg.pool.Pool, "release", slow)
        changing = asyncio.create_task(change())
        await releasing.wait()
        changing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await changing

        async def invalidated() -> bool:
            return connected.counts["things"].invalidations == 1

        await eventually(invalidated, "the invalidation", 5)
    assert await value() == 6


@pytest.mark.usefixtures("pool")
async def test_a_rollback_leaves_the_value(connected: CacheSystem) -> None:
    value = counter()

    async def fail() -> None:
        async with database.transaction() as connection:
            await connection.execute("update counters set value = 4")
            await things.invalidate("counter")
            await connection.execute("select * from nowhere")

    with pytest.raises(asyncpg.UndefinedTableError):
        await fail()
    assert await value() == 1
    assert connected.counts["things"].invalidations == 1  # it does no harm


@pytest.mark.usefixtures("pool")
async def test_an_invalidation_that_fails_is_told_after_the_commit() -> None:
    async def change() -> None:
        async with database.transaction() as connection:
            await connection.execute("update counters set value = 5")
            await things.invalidate("counter")

    async with system("unix:///nowhere/valkey.sock") as lonely:
        with acting_as(lonely):
            with pytest.raises(CacheUnavailable):
                await change()
            async with database.connection() as connection:
                assert await connection.fetchval("select value from counters") == 5


@pytest.mark.usefixtures("pool")
async def test_a_connection_that_cannot_be_given_back_takes_no_invalidation_along(
    connected: CacheSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = asyncpg.pool.Pool.release

    async def broken(pool: Any, connection: Any, **options: Any) -> None:
        await release(pool, connection, **options)
        raise ConnectionResetError("the server is gone")

    async def change(fails: bool) -> None:
        async with database.transaction():
            await things.invalidate("counter")
            if fails:
                raise ValueError("the user's own")

    with monkeypatch.context() as patch:
        patch.setattr(asyncpg.pool.Pool, "release", broken)
        with pytest.raises(ConnectionResetError):
            await change(fails=False)
        with pytest.raises(ValueError, match="the user's own"):
            await change(fails=True)
    assert connected.counts["things"].invalidations == 2
