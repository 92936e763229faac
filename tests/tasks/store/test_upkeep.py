"""Jobs become due, finished ones are deleted, and counts stop at a limit."""

from datetime import UTC, datetime, timedelta

import pytest

from escala.database import Connection, Database
from escala.tasks.job import File
from escala.tasks.store import attempts, jobs, upkeep
from tests.queue import new_worker
from tests.tasks.store.support import claim, enqueue, success


async def test_scheduled_jobs_become_due(connection: Connection) -> None:
    owner = await new_worker(connection)
    assert await upkeep.next_due(connection) is None
    later = await enqueue(connection, after=60)
    await enqueue(connection, at=datetime.now(UTC) + timedelta(hours=1))
    assert await claim(connection, owner) == []
    due = await upkeep.next_due(connection)
    assert due is not None
    assert 55 < due <= 60
    assert not await upkeep.stage(connection)
    await connection.execute("update escala.job set run_at = now() where id = $1", later)
    assert await upkeep.stage(connection)
    assert [job.id for job in await claim(connection, owner)] == [later]


async def test_a_moment_that_has_passed_is_due(connection: Connection) -> None:
    job = await enqueue(connection, at=datetime.now(UTC) - timedelta(days=1))
    assert [each.id for each in await claim(connection, await new_worker(connection))] == [job]


async def test_old_results_are_deleted_with_their_files(connection: Connection) -> None:
    owner = await new_worker(connection)
    old, new = await enqueue(connection, keep=0.0), await enqueue(connection)
    await attempts.finish(connection, owner, [success(job) for job in await claim(connection, owner)])
    await attempts.add_files(connection, old, [File("f", "text/plain", b"")])
    assert not await upkeep.prune(connection)
    assert await jobs.find(connection, old) is None
    assert await jobs.find_file(connection, old, "f") is None
    assert await jobs.find(connection, new) is not None


async def test_pruning_goes_on_until_it_is_done(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "PRUNED_AT_ONCE", 10)
    owner = await new_worker(connection)
    for _ in range(25):
        await enqueue(connection, keep=0.0)
    await attempts.finish(connection, owner, [success(job) for job in await claim(connection, owner)])
    assert [await upkeep.prune(connection) for _ in range(3)] == [True, True, False]
    assert await connection.fetchval("select count(*) from escala.finished_job") == 0


async def test_one_process_prunes_at_a_time(pool: Database) -> None:
    async with pool.connection() as one, pool.connection() as other:
        await enqueue(one, keep=0.0)
        owner = await new_worker(one)
        await attempts.finish(one, owner, [success(job) for job in await claim(one, owner)])
        pruning = one.transaction()
        await pruning.start()
        await upkeep.prune(one)
        assert not await upkeep.prune(other)
        await pruning.rollback()
        await upkeep.prune(other)
        assert await other.fetchval("select count(*) from escala.finished_job") == 0


async def test_counts(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = await new_worker(connection)
    for queue in ("a", "a", "a", "b", "b"):
        await enqueue(connection, queue=queue)
    await enqueue(connection, queue="a", after=60)
    await claim(connection, owner, most=1, queues=["a"])
    await connection.execute("update escala.job set run_at = now() - interval '90s' where queue = 'b'")
    everything = await jobs.count(connection)
    assert everything[:2] == (4, 1)
    assert 89 < everything.oldest_seconds < 95
    assert (await jobs.backlog(connection, ["a"]))[:2] == (2, 1)
    assert (await jobs.backlog(connection, ["a", "b", "c"]))[:2] == (4, 1)
    assert (await jobs.backlog(connection, ["c"])) == (0, 0, 0)
    monkeypatch.setattr(jobs, "MOST_COUNTED", 3)
    assert (await jobs.backlog(connection, ["a", "b"])).waiting == 3
    assert (await jobs.count(connection)).waiting == 3
