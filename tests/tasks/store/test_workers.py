"""Leases of workers, and what becomes of the jobs of one that died."""

import asyncio
import uuid

import asyncpg
import pytest

from escala.database import Connection, Database
from escala.errors import TaskClash
from escala.tasks.listing import ListedTask
from escala.tasks.store import attempts, jobs, workers
from tests.queue import new_worker
from tests.support import eventually
from tests.tasks.store.support import claim, enqueue, success


async def end_lease(connection: Connection, owner: uuid.UUID) -> None:
    await connection.execute("update escala.worker set lease_until = now() - interval '1s' where owner = $1", owner)


async def test_a_lease_that_is_renewed_is_not_ended(connection: Connection) -> None:
    await enqueue(connection)
    owner = await new_worker(connection)
    await claim(connection, owner)
    assert await workers.renew(connection, owner)
    assert await workers.rescue_expired(connection) == ([], [])


async def test_a_rescuer_that_comes_too_late_changes_nothing(pool: Database) -> None:
    """The job is completed between the end of the lease and the rescue: it stays completed."""
    async with pool.connection() as one, pool.connection() as other:
        job = await enqueue(one)
        owner = await new_worker(one)
        [claimed] = await claim(one, owner)
        await end_lease(one, owner)
        completing = one.transaction()
        await completing.start()
        assert await attempts.finish(one, owner, [success(claimed)]) == {job}
        rescue = asyncio.create_task(workers.rescue_expired(other))

        async def waits() -> bool:
            async with pool.connection() as third:
                return bool(await third.fetchval("select count(*) from pg_locks where not granted"))

        await eventually(waits, "the rescue waits for the completion")
        await completing.commit()
        assert await rescue == ([], [])
        found = await jobs.find(one, job)
        assert found is not None
        assert found.state == "succeeded"


async def test_a_claim_in_progress_is_rescued_too(pool: Database) -> None:
    """A worker claims while its lease is ended: what it claimed is not forgotten."""
    async with pool.connection() as one, pool.connection() as other:
        job = await enqueue(one)
        owner = await new_worker(one)
        await end_lease(one, owner)
        claiming = one.transaction()
        await claiming.start()
        assert [each.id for each in await claim(one, owner)] == [job]
        rescue = asyncio.create_task(workers.rescue_dead(other, "here", 1))

        async def waits() -> bool:
            async with pool.connection() as third:
                return bool(await third.fetchval("select count(*) from pg_locks where not granted"))

        await eventually(waits, "the rescue waits for the claim")
        await claiming.commit()
        assert await rescue == ([job], [])


async def test_a_death_that_was_seen(connection: Connection) -> None:
    job = await enqueue(connection)
    owner = await new_worker(connection, pid=7)
    await claim(connection, owner)
    assert await workers.rescue_dead(connection, "elsewhere", 7) == ([], [])
    assert await workers.rescue_dead(connection, "here", 7) == ([job], [])


async def test_only_the_culprit_is_charged(connection: Connection) -> None:
    """Neighbours become suspects. A suspect is charged only with a process that ran nothing else."""
    for _ in range(3):
        await enqueue(connection)
    for death in range(4):
        owner = await new_worker(connection, pid=death)
        claimed = [*await claim(connection, owner), *await attempts.claim_suspects(connection, owner, ["q"], 10)]
        assert len(claimed) == 3
        await connection.execute("update escala.job set alone = false")  # as if each had run beside the others
        await workers.rescue_dead(connection, "here", death)
    assert await connection.fetchval("select sum(crashes) from escala.job") == 0
    owner = await new_worker(connection)
    culprit, *neighbours = await attempts.claim_suspects(connection, owner, ["q"], 10)
    for crashes in (1, 2):
        assert await attempts.crash(connection, owner, culprit.id, culprit.attempt, "signal 9", workers.MOST_CRASHES)
        assert await connection.fetchval("select max(crashes) from escala.job") == crashes
        [culprit] = await attempts.claim_suspects(connection, owner, ["q"], 10)
    assert not await attempts.crash(connection, owner, culprit.id, culprit.attempt, "signal 9", workers.MOST_CRASHES)
    assert await attempts.finish(connection, owner, [success(job) for job in neighbours]) == {j.id for j in neighbours}


async def test_a_pill_that_also_ends_the_worker(connection: Connection) -> None:
    """A suspect whose whole machine dies with it is set aside in the end, too."""
    pill = await enqueue(connection)
    owner = await new_worker(connection)
    await claim(connection, owner)
    await workers.rescue_dead(connection, "here", 1)
    for _ in range(workers.MOST_CRASHES - 1):
        owner = await new_worker(connection)
        await attempts.claim_suspects(connection, owner, ["q"], 1)
        assert await workers.rescue_dead(connection, "here", 1) == ([pill], [])
    owner = await new_worker(connection)
    await attempts.claim_suspects(connection, owner, ["q"], 1)
    assert await workers.rescue_dead(connection, "here", 1) == ([], [pill])
    found = await jobs.find(connection, pill)
    assert found is not None
    assert found.state == "failed"
    assert found.error == "set aside: it ended 3 processes that ran nothing else"


async def test_many_rescuers_rescue_once(pool: Database, empty_queue: str) -> None:
    async with pool.connection() as connection:
        owner = await new_worker(connection)
        found = {await enqueue(connection) for _ in range(50)}
        assert {job.id for job in await claim(connection, owner)} == found
        await end_lease(connection, owner)
    rescuers = [await asyncpg.connect(empty_queue) for _ in range(5)]
    rescued = await asyncio.gather(*(workers.rescue_expired(each) for each in rescuers))
    assert sorted(job for each in rescued for job in each.again) == sorted(found)
    for each in rescuers:
        await each.close()


async def test_two_tasks_of_one_name(connection: Connection) -> None:
    """In two services: a worker does not begin. In one service it is a rollout."""

    async def register(replica: str, function: str) -> None:
        await workers.register(
            connection,
            uuid.uuid4(),
            node="",
            pid=1,
            replica=replica,
            queues=[],
            tasks={"send": ListedTask("q", function)},
        )

    await register("mail/1", "a.send")
    await register("mail/2", "b.send")
    await register("post/1", "b.send")
    await connection.execute("delete from escala.worker where replica = 'mail/2'")
    with pytest.raises(TaskClash) as raised:
        await register("fax/1", "c.send")
    assert str(raised.value) in {
        f"two tasks are named 'send': c.send and {function} of the service {service}; rename one of them"
        for service, function in (("mail", "a.send"), ("post", "b.send"))
    }
