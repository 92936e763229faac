"""Leases and fencing: what a worker that lost its lease writes is refused."""

import asyncio
import uuid

import pytest

from escala.database import Connection, Database
from escala.tasks import queue
from escala.tasks.job import File, Output
from escala.tasks.queue import Held
from escala.tasks.sql import statement

ALICE, BOB = uuid.uuid4(), uuid.uuid4()


async def enqueue(connection: Connection, task: str = "t", retries: int = 3, **arguments: object) -> uuid.UUID:
    return await queue.enqueue(connection, task, arguments, retries)


async def claim(connection: Connection, owner: uuid.UUID = ALICE) -> queue.Claimed:
    (claimed,) = await queue.claim(connection, owner, ["t"], 1)
    return claimed


async def expire(connection: Connection) -> None:
    await connection.execute("update escala.job set lease_until = now() - interval '1 second'")


async def test_from_enqueue_to_result(connection: Connection) -> None:
    job = await enqueue(connection, number=1)
    found = await queue.find(connection, job)
    assert found is not None
    assert (found.state, found.attempt, found.arguments) == ("waiting", 0, {"number": 1})
    claimed = await claim(connection)
    assert claimed == (job, "t", {"number": 1}, 1)
    assert await queue.renew(connection, ALICE, [Held(job, 1, 0.5, "half\0way")]) == {job}
    found = await queue.find(connection, job)
    assert found is not None
    assert (found.state, found.progress, found.message) == ("running", 0.5, "half\N{REPLACEMENT CHARACTER}way")
    output = Output({"answer": 42}, (File("a.csv", "text/csv", b"1,2"),))
    assert await queue.succeed(connection, ALICE, job, 1, output, "done")
    found = await queue.find(connection, job)
    assert found is not None
    assert (found.state, found.progress, found.result, found.files) == ("succeeded", 1.0, {"answer": 42}, ["a.csv"])
    assert await queue.find_file(connection, job, "a.csv") == File("a.csv", "text/csv", b"1,2")
    assert await queue.find_file(connection, job, "b.csv") is None
    assert await queue.count(connection) == (0, 0, 0)


async def test_order_and_limit(connection: Connection) -> None:
    jobs = [await enqueue(connection, number=n) for n in range(5)]
    first = await queue.claim(connection, ALICE, ["t"], 3)
    rest = await queue.claim(connection, BOB, ["t"], 3)
    assert sorted(c.arguments["number"] for c in first) == [0, 1, 2]
    assert {c.id for c in first + rest} == set(jobs)


async def test_only_known_tasks_that_are_due(connection: Connection) -> None:
    await queue.enqueue(connection, "other", {}, 0)
    await queue.enqueue(connection, "t", {}, 0, delay=60)
    assert await queue.claim(connection, ALICE, ["t"], 10) == []


async def test_concurrent_claims_never_share_a_job(pool: Database) -> None:
    async with pool.connection() as connection:
        for number in range(100):
            await enqueue(connection, number=number)

    async def work() -> list[uuid.UUID]:
        mine: list[uuid.UUID] = []
        owner = uuid.uuid4()
        while True:
            async with pool.connection() as connection:
                claimed = await queue.claim(connection, owner, ["t"], 3)
            if not claimed:
                return mine
            mine += [c.id for c in claimed]

    taken = [job for part in await asyncio.gather(*(work() for _ in range(8))) for job in part]
    assert len(taken) == len(set(taken)) == 100


async def test_a_zombie_is_refused_everything(connection: Connection) -> None:
    """The silent zombie: its lease ran out, another finished the job, then it wakes up."""
    job = await enqueue(connection)
    await claim(connection, ALICE)
    await expire(connection)
    assert await queue.rescue(connection) == ([job], [])
    assert await queue.renew(connection, ALICE, [Held(job, 1, 0.9, "")]) == set()
    again = await claim(connection, BOB)
    assert again.attempt == 2
    for owner, attempt in ((ALICE, 1), (ALICE, 2), (BOB, 1)):
        assert not await queue.succeed(connection, owner, job, attempt, Output("zombie"), "")
        assert not await queue.retry(connection, owner, job, attempt, "zombie")
        assert not await queue.fail(connection, owner, job, attempt, "zombie")
        assert await queue.renew(connection, owner, [Held(job, attempt, 0.9, "")]) == set()
    assert await queue.succeed(connection, BOB, job, 2, Output("right"), "")
    assert not await queue.succeed(connection, ALICE, job, 1, Output("zombie"), "")
    found = await queue.find(connection, job)
    assert found is not None
    assert found.result == "right"


async def test_a_rescuer_that_comes_too_late_changes_nothing(connection: Connection) -> None:
    job = await enqueue(connection)
    await claim(connection)
    await expire(connection)
    assert await queue.succeed(connection, ALICE, job, 1, Output(1), "")
    assert await queue.rescue(connection) == ([], [])
    found = await queue.find(connection, job)
    assert found is not None
    assert found.state == "succeeded"


async def test_a_held_lease_is_not_rescued(connection: Connection) -> None:
    await enqueue(connection)
    await claim(connection)
    assert await queue.rescue(connection) == ([], [])


async def test_failures_are_forgiven_with_growing_pauses(connection: Connection) -> None:
    job = await enqueue(connection, retries=2)
    pauses = []
    for attempt in (1, 2):
        assert (await claim(connection)).attempt == attempt
        assert await queue.retry(connection, ALICE, job, attempt, f"error {attempt}\0")
        pauses.append(await connection.fetchval("select extract(epoch from run_at - now())::float8 from escala.job"))
        await connection.execute("update escala.job set run_at = now()")
    assert 0.7 < pauses[0] < 1.3
    assert 1.4 < pauses[1] < 2.6
    await claim(connection)
    assert not await queue.retry(connection, ALICE, job, 3, "error 3")
    assert await queue.fail(connection, ALICE, job, 3, "error 3")
    found = await queue.find(connection, job)
    assert found is not None
    assert (found.state, found.attempt, found.error) == ("failed", 3, "error 3")


async def test_a_poison_pill_is_set_aside_and_its_neighbour_is_not(connection: Connection) -> None:
    poison, neighbour = await enqueue(connection), await enqueue(connection, "neighbour")
    for _ in range(queue.CRASHES_FORGIVEN):
        await claim(connection)
        await expire(connection)
        assert await queue.rescue(connection) == ([poison], [])
    await claim(connection)
    await expire(connection)
    assert await queue.rescue(connection) == ([], [poison])
    found = await queue.find(connection, poison)
    assert found is not None
    assert found.state == "failed"
    assert found.error == "set aside: 3 worker processes ended while they ran it"
    waiting = await queue.find(connection, neighbour)
    assert waiting is not None
    assert waiting.state == "waiting"


async def test_release_is_no_failure(connection: Connection) -> None:
    job = await enqueue(connection, retries=0)
    await claim(connection)
    assert await queue.release(connection, BOB, [job]) == 0
    assert await queue.release(connection, ALICE, [job]) == 1
    assert (await claim(connection, BOB)).attempt == 2


async def test_old_results_are_pruned(connection: Connection) -> None:
    old, new = await enqueue(connection), await enqueue(connection)
    for job in (old, new):
        claimed = await claim(connection)
        output = Output(1, (File("f", "text/plain", b""),))
        assert await queue.succeed(connection, ALICE, claimed.id, claimed.attempt, output, "")
        del job
    await connection.execute(
        "update escala.finished_job set finished_at = now() - interval '8 days' where id = $1", old
    )
    await queue.prune(connection)
    assert await queue.find(connection, old) is None
    assert await queue.find(connection, new) is not None


@pytest.mark.parametrize(("name", "parameters"), [("claim", (ALICE, ["t"], 10, 10.0)), ("rescue", (3,))])
async def test_plans_use_an_index_and_never_scan_the_backlog(
    connection: Connection, name: str, parameters: tuple[object, ...]
) -> None:
    await connection.execute(
        "insert into escala.job (task, arguments, retries) select 't', '{}', 0 from generate_series(1, 20000)"
    )
    await connection.execute("analyze escala.job")
    plan = "\n".join(row[0] for row in await connection.fetch(f"explain {statement(name)}", *parameters))
    assert "Seq Scan on job" not in plan, plan
    assert "Index Scan" in plan, plan
