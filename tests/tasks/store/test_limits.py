"""How many jobs run at a time, how often they begin, whether a second one is made, and ticks."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

from escala import task
from escala.database import Connection, Database
from escala.tasks.store import attempts, limits, upkeep
from escala.tasks.store import cron as cron_store
from escala.tasks.store.attempts import Claimed
from tests.queue import new_worker
from tests.support import eventually
from tests.tasks.store.support import claim, success


@task(name="limited", queue="q", concurrency=2, concurrency_key="{customer}")
async def limited(customer: str) -> None: ...


@task(name="rated", queue="q", rate="3/1m")
async def rated() -> None: ...


@task(name="single", queue="q", unique="{customer}")
async def single(customer: str, amount: int = 1) -> None: ...


@task(name="hourly", queue="q", unique=True, unique_for="1h")
async def hourly(number: int) -> None: ...


@task(name="ticking", queue="q", cron="* * * * *")
async def ticking() -> None: ...


async def admitted(connection: Connection, owner: uuid.UUID, jobs: list[Claimed]) -> set[uuid.UUID]:
    found: set[uuid.UUID] = set()
    for key in {job.limit_key for job in jobs if job.limit_key}:
        found |= await limits.admit(connection, owner, key, [job for job in jobs if job.limit_key == key])
    return found


async def states(connection: Connection) -> list[str]:
    return [row[0] for row in await connection.fetch("select state from escala.job order by seq")]


async def test_so_many_of_each_key(connected: Database, connection: Connection) -> None:
    await limited.enqueue_many([{"customer": name} for name in ("a", "a", "b", "a", "b", "a")])
    owner = await new_worker(connection)
    jobs = sorted(await claim(connection, owner), key=lambda job: job.seq)
    begun = await admitted(connection, owner, jobs)
    assert [job.id in begun for job in jobs] == [True, True, True, False, True, False]
    assert await states(connection) == ["running", "running", "running", "blocked", "running", "blocked"]
    assert await claim(connection, owner) == []
    await limits.unblock(connection, "limited:a")  # two run: none may go on
    assert (await states(connection)).count("blocked") == 2
    await attempts.finish(connection, owner, [success(jobs[0])])
    await limits.unblock(connection, "limited:a")
    await limits.unblock(connection, "limited:a")  # the one that waits counts already
    assert (await states(connection)).count("blocked") == 1
    [again] = await claim(connection, owner)
    assert (again.id, again.attempt) == (jobs[3].id, 1)
    assert await admitted(connection, owner, [again]) == {again.id}
    assert await limits.blocked_keys(connection) == ["limited:a"]


async def test_many_workers_admit_no_more_than_the_limit(connected: Database, pool: Database) -> None:
    await limited.enqueue_many([{"customer": "a"}] * 30)
    running: set[uuid.UUID] = set()
    most = 0

    async def work() -> None:
        nonlocal most
        async with pool.connection() as connection:
            owner = await new_worker(connection)
        while True:
            async with pool.connection() as connection:
                jobs = await claim(connection, owner, most=3)
                begun = await admitted(connection, owner, jobs)
                running.update(begun)
                most = max(most, len(running))
                await asyncio.sleep(0.002)
                running.difference_update(begun)
                if begun:
                    await attempts.finish(connection, owner, [success(job) for job in jobs if job.id in begun])
                await limits.unblock(connection, "limited:a")
                if not await connection.fetchval("select count(*) from escala.job"):
                    return

    async with asyncio.timeout(30):
        await asyncio.gather(*(work() for _ in range(6)))
    assert 1 <= most <= 2


async def test_a_rate(connected: Database, connection: Connection) -> None:
    await rated.enqueue_many([{}] * 5)
    owner = await new_worker(connection)
    jobs = sorted(await claim(connection, owner), key=lambda job: job.seq)
    assert rated.limits.rate == (3, 60.0)
    begun = await limits.take_turns(connection, owner, "rated", (3, 60.0), jobs)
    assert [job.id in begun for job in jobs] == [True, True, True, False, False]
    rows = await connection.fetch(
        "select state, paid, attempt, extract(epoch from run_at - now())::float8 as pause from escala.job order by seq"
    )
    assert [(row["state"], row["paid"], row["attempt"]) for row in rows[3:]] == [("scheduled", True, 0)] * 2
    assert 18 < rows[3]["pause"] <= 20
    assert 38 < rows[4]["pause"] <= 40


async def test_one_job_of_a_key(connected: Database, connection: Connection) -> None:
    first = await single.enqueue("a")
    again = await single.enqueue("a", amount=2)
    other = await single.enqueue("b")
    assert (first.is_new, again.is_new, other.is_new) == (True, False, True)
    assert again.id == first.id
    owner = await new_worker(connection)
    await attempts.finish(connection, owner, [success(job) for job in await claim(connection, owner)])
    later = await single.enqueue("a")
    assert later.is_new
    assert later.id != first.id


async def test_one_job_of_a_key_for_a_time(connected: Database, connection: Connection) -> None:
    """Also after it has finished."""
    first = await hourly.enqueue(1)
    assert (await hourly.enqueue(2)).is_new
    owner = await new_worker(connection)
    await attempts.finish(connection, owner, [success(job) for job in await claim(connection, owner)])
    assert (await hourly.enqueue(1)).id == first.id
    await connection.execute("update escala.unique_job set until = now() - interval '1s'")
    assert (await hourly.enqueue(1)).is_new
    await connection.execute("update escala.unique_job set until = now() - interval '1s'")
    await upkeep.prune(connection)
    assert await connection.fetchval("select count(*) from escala.unique_job") == 1  # that of the job that waits


async def test_a_key_belongs_to_the_transaction(connected: Database, pool: Database) -> None:
    async with pool.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        first = await single.with_options(connection=connection).enqueue("a")
        await transaction.rollback()
    assert (await single.enqueue("a")).id != first.id


async def test_concurrent_callers_make_one(connected: Database) -> None:
    made = await asyncio.gather(*(single.enqueue("a") for _ in range(20)))
    assert len({job.id for job in made}) == 1
    assert sum(job.is_new for job in made) == 1


async def test_a_tick_makes_one_job(connected: Database, pool: Database) -> None:
    """Whoever sees it first; all at the same moment."""
    moment = datetime(2026, 5, 1, 12, tzinfo=UTC)

    async def see(tick: datetime) -> bool:
        async with pool.connection() as connection:
            return await cron_store.tick(connection, "ticking", tick, ticking.new_job())

    async with pool.connection() as connection:
        assert await cron_store.tick(connection, "ticking", moment, None)
        assert await connection.fetchval("select count(*) from escala.job") == 0
        following = moment + timedelta(minutes=1)
        assert sum(await asyncio.gather(*(see(following) for _ in range(8)))) == 1
        assert not await see(moment)
        assert await connection.fetchval("select count(*) from escala.job") == 1

        async def latest() -> bool:
            return (await cron_store.last_tick(connection, "ticking"))[1] == following

        await eventually(latest, "the tick is noted")
