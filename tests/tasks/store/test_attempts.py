"""Claims and outcomes: each job goes to one worker, and what a worker without the lease writes is refused."""

import asyncio
import uuid

from escala.database import Connection, Database
from escala.tasks.job import File
from escala.tasks.store import attempts, jobs, workers
from escala.tasks.store.attempts import Again, Given, Told
from tests.queue import new_worker
from tests.tasks.store.support import claim, enqueue, failure, success


async def test_from_enqueue_to_result(connection: Connection) -> None:
    job = await enqueue(connection, number=1)
    found = await jobs.find(connection, job)
    assert found is not None
    assert (found.state, found.attempt, found.arguments, found.queue) == ("waiting", 0, {"number": 1}, "q")
    owner = await new_worker(connection)
    [claimed] = await claim(connection, owner)
    assert (claimed.id, claimed.task, claimed.arguments, claimed.attempt) == (job, "t", '{"number":1}', 1)
    await attempts.tell(connection, owner, [Told(job, 1, 0.5, "half\0way")])
    found = await jobs.find(connection, job)
    assert found is not None
    assert (found.state, found.progress, found.message) == ("running", 0.5, "half\N{REPLACEMENT CHARACTER}way")
    async with connection.transaction():
        assert await attempts.finish(connection, owner, [success(claimed, '{"b":-0.0,"a":1}')]) == {job}
        await attempts.add_files(connection, job, [File("a.csv", "text/csv", b"1,2")])
    found = await jobs.find(connection, job)
    assert found is not None
    assert (found.state, found.progress, list(found.result), found.files) == ("succeeded", 1.0, ["b", "a"], ["a.csv"])
    assert str(found.result["b"]) == "-0.0"
    assert await jobs.find_file(connection, job, "a.csv") == File("a.csv", "text/csv", b"1,2")
    assert await jobs.find_file(connection, job, "b.csv") is None
    assert await jobs.count(connection) == (0, 0, 0)


async def test_order(connection: Connection) -> None:
    owner = await new_worker(connection)
    first = [await enqueue(connection, number=n) for n in range(3)]
    urgent = await enqueue(connection, priority=5)
    idle = await enqueue(connection, priority=-1)
    order = [(await claim(connection, owner, most=1))[0].id for _ in range(5)]
    assert order == [urgent, *first, idle]


async def test_queues_in_their_turn(connection: Connection) -> None:
    """The first queue gives as much as it has; the others fill the rest; a paused one gives nothing."""
    owner = await new_worker(connection)
    for queue in ("a", "b", "c", "d"):
        for _ in range(3):
            await enqueue(connection, queue=queue)
    await connection.execute("insert into escala.paused_queue (name) values ('d')")
    taken = await claim(connection, owner, most=4, queues=["d", "b", "a"])
    assert sorted(job.queue for job in taken) == ["a", "b", "b", "b"]
    rest = await claim(connection, owner, queues=["d", "b", "a"])
    assert [job.queue for job in rest] == ["a", "a"]


async def test_behind_a_mark(connection: Connection) -> None:
    owner = await new_worker(connection)
    early, late = await enqueue(connection), await enqueue(connection)
    [first] = await claim(connection, owner, most=1)
    assert first.id == early
    await attempts.release(connection, owner, [Given(early, 1, began=False)])
    behind = await attempts.claim(connection, owner, [("q", first.mark)], 10)
    assert [job.id for job in behind] == [late]


async def test_concurrent_claims_never_share_a_job(pool: Database) -> None:
    async with pool.connection() as connection:
        for number in range(100):
            await enqueue(connection, number=number)

    async def work() -> list[uuid.UUID]:
        mine: list[uuid.UUID] = []
        async with pool.connection() as connection:
            owner = await new_worker(connection)
        while True:
            async with pool.connection() as connection:
                claimed = await claim(connection, owner, most=3)
            if not claimed:
                return mine
            mine += [job.id for job in claimed]

    taken = [job for part in await asyncio.gather(*(work() for _ in range(8))) for job in part]
    assert len(taken) == len(set(taken)) == 100


async def test_a_zombie_is_refused_everything(connection: Connection) -> None:
    """The silent zombie: its lease ran out, another finished the job, then it wakes up."""
    job = await enqueue(connection)
    alice, bob = await new_worker(connection), await new_worker(connection)
    [before] = await claim(connection, alice)
    await connection.execute("update escala.worker set lease_until = now() - interval '1s' where owner = $1", alice)
    assert await workers.rescue_expired(connection) == ([job], [])
    assert not await workers.renew(connection, alice)
    assert await claim(connection, alice) == []
    [again] = await attempts.claim_suspects(connection, bob, ["q"], 1)
    assert again.attempt == 2
    for owner, attempt in ((alice, 1), (alice, 2), (bob, 1)):
        zombie = before._replace(attempt=attempt)
        assert await attempts.finish(connection, owner, [success(zombie), failure(zombie, "zombie")]) == set()
        assert await attempts.again(connection, owner, [Again(job, attempt, 0, "zombie", failed=True)]) == set()
        assert await attempts.release(connection, owner, [Given(job, attempt, began=True)]) == set()
        await attempts.tell(connection, owner, [Told(job, attempt, 0.9, "zombie")])
    assert [(row.id, row.attempt) for row in await attempts.held(connection, bob, [job])] == [(job, 2)]
    assert await attempts.held(connection, alice, [job]) == []
    assert await attempts.finish(connection, bob, [success(again, '"right"')]) == {job}
    assert await attempts.finish(connection, alice, [success(before)]) == set()
    found = await jobs.find(connection, job)
    assert found is not None
    assert (found.result, found.message) == ("right", "")


async def test_a_batch_is_written_but_for_what_is_lost(connection: Connection) -> None:
    owner = await new_worker(connection)
    for _ in range(3):
        await enqueue(connection)
    claimed = await claim(connection, owner)
    rows = [success(claimed[0]), failure(claimed[1], "no"), success(claimed[2]._replace(attempt=7))]
    assert await attempts.finish(connection, owner, rows) == {claimed[0].id, claimed[1].id}
    states = await connection.fetch("select state, failures from escala.finished_job order by id")
    assert [tuple(row) for row in states] == [("succeeded", 0), ("failed", 1)]


async def test_another_attempt(connection: Connection) -> None:
    job = await enqueue(connection)
    owner = await new_worker(connection)
    await claim(connection, owner)
    assert await attempts.again(connection, owner, [Again(job, 1, 30, "error\0", failed=True)]) == {job}
    found = await jobs.find(connection, job)
    assert found is not None
    assert (found.state, found.error) == ("scheduled", "error\N{REPLACEMENT CHARACTER}")
    pause = await connection.fetchval("select extract(epoch from run_at - now())::float8 from escala.job")
    assert 29 < pause <= 30
    assert await claim(connection, owner) == []


async def test_giving_back_is_no_failure(connection: Connection) -> None:
    """An attempt that had not begun was none; one that had begun keeps its number, which a zombie may know."""
    job = await enqueue(connection, retries=0)
    owner = await new_worker(connection)
    await claim(connection, owner)
    assert await attempts.release(connection, owner, [Given(job, 1, began=False)]) == {job}
    [claimed] = await claim(connection, owner)
    assert claimed.attempt == 1
    assert await attempts.release(connection, owner, [Given(job, 1, began=True)]) == {job}
    [claimed] = await claim(connection, owner)
    assert (claimed.attempt, claimed.failures) == (2, 0)


async def test_expired_jobs_are_told_apart(connection: Connection) -> None:
    await enqueue(connection, within=0.0)
    await enqueue(connection, within=60.0)
    claimed = await claim(connection, await new_worker(connection))
    assert [job.expired for job in claimed] == [True, False]
