"""The worker on a real queue. Deaths of its process are tested with the laboratory's worker."""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest

from escala.database import Database
from escala.tasks import File, Output, Task, progress, queue, task
from escala.tasks.job import JobRecord
from escala.tasks.worker import worker as worker_module
from escala.tasks.worker.worker import Worker
from tests.support import eventually

released = threading.Event()


@task
async def double(number: int) -> int:
    return 2 * number


@task
def in_a_thread() -> str:
    return threading.current_thread().name


@task
def filed() -> Output:
    return Output({"rows": 1}, (File("a.txt", "text/plain", b"content"),))


@task(retries=1)
async def failing() -> None:
    raise ValueError("no\0way")


@task(retries=0, timeout="100ms")
async def slow() -> None:
    await asyncio.sleep(30)


@task(retries=0)
async def exiting() -> None:
    sys.exit(3)


@task(retries=0)
async def unstorable() -> object:
    return object()


@task(retries=0)
async def surrogate() -> None:
    progress(0.5, "reading caf\udce9.txt")
    await asyncio.sleep(1.5)  # long enough for the progress to be written
    raise ValueError("cannot read caf\udce9.txt")


@task(retries=0)
async def twice_the_same_file() -> Output:
    return Output(1, (File("a", "text/plain", b""), File("a", "text/plain", b"")))


@task(retries=0)
async def cancels_itself() -> None:
    raise asyncio.CancelledError


@task(retries=0)
async def own_timeout() -> None:
    raise TimeoutError("partner slow")


@task
async def blocking() -> str:
    """Block the handlers' loop, as no handler should: leases must be renewed all the same."""
    progress(0.25, "blocking")
    time.sleep(4)
    return "done"


@task
def waiting() -> str:
    progress(0.5, "waiting")
    released.wait(30)
    return "released"


TASKS: dict[str, Task[..., Any]] = {
    t.name: t
    for t in (
        *(double, in_a_thread, filed, failing, slow, exiting, unstorable, blocking, waiting),
        *(surrogate, twice_the_same_file, cancels_itself, own_timeout),
    )
}


@asynccontextmanager
async def worker(pool: Database, concurrency: int = 5) -> AsyncIterator[Worker]:
    made = Worker(database=pool, tasks=TASKS, concurrency=concurrency, context=_nothing())
    running = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        await made.drain(0.2)
        await running


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    with nullcontext():
        yield


async def finished(pool: Database, name: str, **arguments: object) -> JobRecord:
    async with pool.connection() as connection:
        job = await queue.enqueue(connection, name, arguments, TASKS[name].retries)
    return await state_of(pool, job, lambda record: record.finished_at is not None)


async def state_of(pool: Database, job: Any, condition: Callable[[JobRecord], bool]) -> JobRecord:
    async def look() -> JobRecord | None:
        async with pool.connection() as connection:
            record = await queue.find(connection, job)
        return record if record is not None and condition(record) else None

    record = await eventually(look, "the job's state")
    assert isinstance(record, JobRecord)
    return record


async def test_results(pool: Database) -> None:
    async with worker(pool) as running:
        assert (await finished(pool, "double", number=21)).result == 42
        assert (await finished(pool, "in_a_thread")).result.startswith("handler")
        assert (await finished(pool, "filed")).files == ["a.txt"]
        assert running.succeeded == 3
        assert running.healthy


@pytest.mark.parametrize(
    ("name", "state", "error"),
    [
        ("slow", "failed", "no result within 0.1 s"),
        ("exiting", "failed", "RuntimeError: the handler called sys.exit(3)"),
        ("unstorable", "failed", "the result cannot be stored"),
        ("twice_the_same_file", "failed", "the result cannot be stored"),
        ("surrogate", "failed", "ValueError: cannot read caf?.txt"),
        ("cancels_itself", "failed", "the handler was cancelled by its own code"),
        ("own_timeout", "failed", "TimeoutError: partner slow"),
    ],
)
async def test_failures_at_once(pool: Database, name: str, state: str, error: str) -> None:
    async with worker(pool):
        record = await finished(pool, name)
    assert (record.state, record.attempt) == (state, 1)
    assert error in (record.error or "")


async def test_arguments_that_fit_no_more(pool: Database) -> None:
    """The caller's code was older or newer than the worker's."""
    async with worker(pool):
        record = await finished(pool, "double", nmber=1)
    assert (record.state, record.attempt) == ("failed", 1)
    assert "arguments of task 'double'" in (record.error or "")


async def test_a_failure_is_tried_again_and_keeps_its_reason(pool: Database) -> None:
    async with worker(pool):
        record = await finished(pool, "failing")
    assert (record.state, record.attempt) == ("failed", 2)
    assert "ValueError: no" in (record.error or "")
    assert "test_worker.py" in (record.error or "")


async def test_a_handler_that_blocks_keeps_its_lease_and_its_neighbours_wait(
    pool: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "LEASE_SECONDS", 2.0)
    async with worker(pool) as first, worker(pool) as second:
        async with pool.connection() as connection:
            job = await queue.enqueue(connection, "blocking", {}, 0)
        seen = await state_of(pool, job, lambda record: record.message == "blocking")
        assert seen.progress == 0.25
        record = await state_of(pool, job, lambda record: record.finished_at is not None)
        assert first.healthy
        assert second.healthy
    assert (record.state, record.attempt, record.result) == ("succeeded", 1, "done")


async def test_more_jobs_than_places(pool: Database) -> None:
    async with worker(pool, concurrency=3):
        records = await asyncio.gather(*(finished(pool, "double", number=n) for n in range(40)))
    assert [record.result for record in records] == [2 * n for n in range(40)]


async def test_a_worker_that_is_full_is_not_deaf(pool: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """It claims nothing while all its places are taken, and renews leases all the same."""
    monkeypatch.setattr(worker_module, "DEAF_SECONDS", 1.5)
    released.clear()
    async with worker(pool, concurrency=1) as full:
        async with pool.connection() as connection:
            job = await queue.enqueue(connection, "waiting", {}, 0)
        await state_of(pool, job, lambda record: record.state == "running")
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert full.healthy
            await asyncio.sleep(0.05)
        released.set()
        await state_of(pool, job, lambda record: record.finished_at is not None)


async def test_drain_lets_jobs_finish(pool: Database) -> None:
    released.clear()
    made = Worker(database=pool, tasks=TASKS, concurrency=5, context=_nothing())
    running = asyncio.create_task(made.run())
    async with pool.connection() as connection:
        job = await queue.enqueue(connection, "waiting", {}, 0)
    await state_of(pool, job, lambda record: record.state == "running")
    draining = asyncio.create_task(made.drain(20))
    await asyncio.sleep(0)
    async with pool.connection() as connection:
        later = await queue.enqueue(connection, "double", {"number": 1}, 0)
    released.set()
    await draining
    await running
    assert (await state_of(pool, job, lambda record: True)).state == "succeeded"
    assert (await state_of(pool, later, lambda record: True)).state == "waiting"


async def test_what_does_not_finish_is_given_back(pool: Database) -> None:
    released.clear()
    async with worker(pool):
        async with pool.connection() as connection:
            job = await queue.enqueue(connection, "waiting", {}, 0)
        await state_of(pool, job, lambda record: record.state == "running")
    record = await state_of(pool, job, lambda record: True)
    assert (record.state, record.attempt) == ("waiting", 1)
    released.set()
    async with worker(pool):
        record = await state_of(pool, job, lambda record: record.finished_at is not None)
    assert (record.state, record.attempt) == ("succeeded", 2)


async def test_the_death_of_a_duty_is_loud(pool: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(connection: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(queue, "rescue", broken)
    made = Worker(database=pool, tasks=TASKS, concurrency=5, context=_nothing())
    with pytest.raises(RuntimeError, match="a bug"):
        async with asyncio.timeout(10):
            await made.run()
    await made._handlers.stop()
