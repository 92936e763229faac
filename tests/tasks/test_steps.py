"""Steps are done once, also if the job takes several attempts."""

import uuid
from dataclasses import dataclass
from datetime import date

import pytest

from escala import task
from escala.database import Connection, Database
from escala.errors import LeaseLost
from escala.tasks import JobContext
from escala.tasks.steps import Steps
from escala.tasks.store import upkeep
from escala.testing import run_jobs
from tests.queue import new_worker
from tests.tasks.store.support import claim, enqueue

calls: list[str] = []


@dataclass
class Receipt:
    day: date
    amount: int


async def charge(amount: int) -> Receipt:
    calls.append("charge")
    return Receipt(date(2026, 5, 1), amount)


def send(receipt: Receipt, *, copy: bool) -> None:
    calls.append(f"send {receipt.amount} {receipt.day.isoformat()} {copy}")


@task(queue="q", retries=3)
async def order(job: JobContext, amount: int) -> int:
    receipt = await job.step("charge", charge, amount)
    assert isinstance(receipt, Receipt)
    if job.attempt == 1:
        raise ConnectionError("after the first step")
    await job.step("send", send, receipt, copy=True)
    if job.attempt == 2:
        raise ConnectionError("after the second step")
    return receipt.amount


@task(queue="q", retries=0)
async def twice(job: JobContext) -> None:
    await job.step("a", int)
    await job.step("a", int)


@task(queue="q", retries=0)
async def unstorable(job: JobContext) -> None:
    await job.step("a", object)


async def test_a_retry_goes_on_after_the_last_finished_step(connected: Database, connection: Connection) -> None:
    calls.clear()
    await order.enqueue(5)
    [job] = await run_jobs(order)
    assert (job.state, job.result, job.attempt) == ("succeeded", 5, 3)
    assert calls == ["charge", "send 5 2026-05-01 True"]
    assert await connection.fetchval("select count(*) from escala.job_step") == 2
    await upkeep.prune(connection)
    assert await connection.fetchval("select count(*) from escala.job_step") == 0


async def test_steps_that_are_not_possible(connected: Database) -> None:
    await twice.enqueue()
    await unstorable.enqueue()
    first, second = await run_jobs(twice, unstorable)
    assert "two steps 'a'" in (first.error or "")
    assert "a object has no place in JSON" in (second.error or "")


async def test_an_attempt_that_lost_its_lease_records_nothing(connected: Database, connection: Connection) -> None:
    job = await enqueue(connection)
    owner = await new_worker(connection)
    await claim(connection, owner)
    await Steps(job, 1, owner).run("a", int, (), {})
    for attempt, of in ((2, owner), (1, uuid.uuid4())):
        with pytest.raises(LeaseLost, match="the step 'b' was not recorded"):
            await Steps(job, attempt, of).run("b", int, (), {})
    assert [row[0] for row in await connection.fetch("select name from escala.job_step")] == ["a"]


async def test_outside_a_job_steps_are_calls() -> None:
    calls.clear()
    with pytest.raises(ConnectionError):
        await order(5)
    assert calls == ["charge"]
