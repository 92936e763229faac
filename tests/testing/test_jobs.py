import uuid
from typing import Any

import pytest

from escala import task
from escala.database import Connection, Database
from escala.tasks import File, JobContext, Output, Snooze
from escala.testing import run_jobs
from tests.queue import connected, connection, empty_queue, pool

__all__ = ["connected", "connection", "empty_queue", "pool"]


@task(queue="q")
async def parent(number: int) -> str:
    return (await child.enqueue(number + 1)).id


@task(queue="q")
def child(number: int) -> int:
    return 2 * number


@task(queue="q", retries=2)
async def stubborn(job: JobContext) -> int:
    if job.attempt < 3:
        raise ValueError("not yet")
    return job.attempt


@task(queue="q", retries=1)
async def hopeless() -> None:
    raise ValueError("never")


@task(queue="q")
async def filed(job: JobContext) -> Output:
    if job.attempt == 1:
        raise Snooze("1h")
    return Output(1, (File("a", "text/plain", b"x"),))


async def test_jobs_and_those_that_they_enqueue(connected: Database) -> None:
    await parent.enqueue(1)
    first, second = await run_jobs(parent, child)
    assert (first.state, first.result) == ("succeeded", str(second.id))
    assert (second.arguments, second.result) == ({"number": 2}, 4)
    assert await run_jobs(parent, child) == []


async def test_failures_are_repeated_without_a_pause(connected: Database) -> None:
    await stubborn.enqueue()
    await hopeless.enqueue()
    await filed.enqueue()
    records = {record.task.rpartition(".")[2]: record for record in await run_jobs(stubborn, hopeless, filed)}
    assert (records["stubborn"].state, records["stubborn"].result) == ("succeeded", 3)
    assert (records["hopeless"].state, records["hopeless"].attempt) == ("failed", 2)
    assert "ValueError: never" in (records["hopeless"].error or "")
    assert records["filed"].files == ["a"]


async def test_what_is_not_due_waits(connected: Database, connection: Connection) -> None:
    job = await child.with_options(after="1h").enqueue(1)
    assert await run_jobs(child) == []
    row: Any = await connection.fetchrow("select state from escala.job where id = $1", uuid.UUID(job.id))
    assert row["state"] == "scheduled"


async def test_a_task_that_was_not_given(connected: Database, connection: Connection) -> None:
    await child.enqueue(1)
    with pytest.raises(LookupError, match=r"tests.testing.test_jobs.child"):
        await run_jobs(parent)
    assert await connection.fetchval("select count(*) from escala.worker") == 0
    assert await connection.fetchval("select state from escala.job") == "suspect"
