import asyncio
import functools
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from escala.database import Connection, Database
from escala.errors import NotConnected, TaskArguments
from escala.tasks import JobContext, Snooze, Task, progress, task
from escala.tasks.context import current_job
from escala.tasks.store import jobs
from escala.values.names import function_name


@task
def plain(number: int, text: str = "x") -> str:
    return text * number


@task(name="renamed", retries=5, timeout="2s", queue="mail", priority=7, expires="1h", keep="1d")
async def configured(month: int) -> int:
    return month


@task
async def with_context(job: JobContext, month: int) -> str:
    job.progress(0.5)
    return f"{job.task} {job.attempt} {month}"


def test_calling_a_task_runs_it_here() -> None:
    assert plain(2, text="ab") == "abab"


async def test_calling_one_with_a_context() -> None:
    assert await with_context(3) == "tests.tasks.test_task.with_context 1 3"
    assert await with_context(month=3) == "tests.tasks.test_task.with_context 1 3"
    mine = JobContext("1", "mine", 2)
    call: Callable[..., Awaitable[str]] = with_context
    assert await call(job=mine, month=3) == "mine 2 3"
    assert mine.reported == (0.5, "")


def test_what_a_task_knows() -> None:
    assert (plain.name, plain.queue, plain.retries.most, plain.timeout, plain.is_async) == (
        "tests.tasks.test_task.plain",
        "tests.tasks.test_task",
        3,
        600,
        False,
    )
    assert (configured.name, configured.queue, configured.retries.most, configured.timeout, configured.is_async) == (
        "renamed",
        "mail",
        5,
        2,
        True,
    )


async def test_enqueue(connected: Database) -> None:
    job = await configured.enqueue(2)
    async with connected.connection() as connection:
        found = await jobs.find(connection, uuid.UUID(job.id))
        expires = await connection.fetchval("select expires_at - run_at from escala.job")
    assert found is not None
    assert (found.task, found.queue, found.priority, found.arguments) == ("renamed", "mail", 7, {"month": 2})
    assert (found.state, found.subject) == ("waiting", None)
    assert expires == timedelta(hours=1)


async def test_ids_are_in_the_order_of_time_and_cannot_be_guessed(connected: Database) -> None:
    ids = [uuid.UUID((await plain.enqueue(1)).id) for _ in range(20)]
    assert {each.version for each in ids} == {7}
    assert {each.variant for each in ids} == {uuid.RFC_4122}
    assert ids == sorted(ids)
    assert len({each.int & (2**62 - 1) for each in ids}) == 20


async def test_options(connected: Database) -> None:
    moment = datetime(2050, 1, 1, tzinfo=UTC)
    at = await configured.with_options(at=moment, priority=-3, queue="other").enqueue(1)
    after = await plain.with_options(after="90s").enqueue(1)
    async with connected.connection() as connection:
        first = await jobs.find(connection, uuid.UUID(at.id))
        second = await jobs.find(connection, uuid.UUID(after.id))
    assert first is not None
    assert second is not None
    assert (first.state, first.run_at, first.priority, first.queue) == ("scheduled", moment, -3, "other")
    assert second.run_at is not None
    assert second.run_at - second.enqueued_at == timedelta(seconds=90)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"at": datetime(2050, 1, 1)}, "has no time zone"),
        ({"at": datetime(2050, 1, 1, tzinfo=UTC), "after": "1s"}, "not both"),
        ({"after": "soon"}, "expected"),
        ({"after": timedelta(seconds=-1)}, "cannot be negative"),
        ({"priority": 1001}, "from -1000 to 1000"),
        ({"expires": "x"}, "expected"),
    ],
)
def test_options_that_are_not_possible(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        plain.with_options(**options)


async def test_many(connected: Database) -> None:
    assert await plain.enqueue_many([]) == []
    made = await plain.enqueue_many([{"number": n} for n in range(2500)])
    async with connected.connection() as connection:
        rows = await connection.fetch("select id, arguments from escala.job order by seq")
    assert [str(row["id"]) for row in rows] == [job.id for job in made]
    assert [row["arguments"]["number"] for row in rows] == list(range(2500))


async def test_many_are_all_or_none(connected: Database) -> None:
    with pytest.raises(TaskArguments, match="number"):
        await plain.enqueue_many([{"number": 1}, {"number": "x"}])
    async with connected.connection() as connection:
        assert (await jobs.count(connection)).waiting == 0


async def test_concurrent_callers_are_written_together(connected: Database) -> None:
    """Each returns when its own job is committed."""

    async def call(number: int) -> None:
        job = await plain.enqueue(number)
        async with connected.connection() as connection:
            assert await jobs.find(connection, uuid.UUID(job.id)) is not None

    await asyncio.gather(*(call(number) for number in range(100)))


async def test_a_caller_that_is_cancelled_leaves_the_others_alone(connected: Database) -> None:
    calls = [asyncio.create_task(plain.enqueue(number)) for number in range(20)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert {call.cancelled() for call in calls[1::2]} == {False}
    assert (await plain.enqueue(1)).task == plain.name


async def test_enqueue_unconnected() -> None:
    with pytest.raises(NotConnected):
        await plain.enqueue(1)


async def test_a_job_belongs_to_the_callers_transaction(connection: Connection) -> None:
    transaction = connection.transaction()
    await transaction.start()
    job = await plain.with_options(connection=connection).enqueue(1)
    assert await jobs.find(connection, uuid.UUID(job.id)) is not None
    await transaction.rollback()
    assert await jobs.find(connection, uuid.UUID(job.id)) is None


def test_functions_that_are_no_tasks() -> None:
    with pytest.raises(TypeError, match="cannot be passed by name"):
        task(name="x")(lambda *numbers: None)
    with pytest.raises(TypeError, match="give it one of its own"):
        task(lambda: None)
    with pytest.raises(TypeError, match="a task is a function"):
        task(functools.partial(print, 1))
    with pytest.raises(TypeError, match="a task is a function"):
        task(Point)
    with pytest.raises(TypeError, match="plain functions"):
        task(process=True)(_coroutine)


@dataclass
class Point:
    x: int = 0


async def _coroutine() -> None: ...


@pytest.mark.parametrize(
    "options",
    [
        {"retries": -1},
        {"retries": {ValueError: -1}},
        {"timeout": "x"},
        {"backoff": "x"},
        {"priority": 1001},
        {"expires": "x"},
        {"keep": "x"},
    ],
)
def test_values_that_are_not_possible(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        task(name="x", **options)(lambda: None)


def test_names_come_from_module_and_function() -> None:
    def made() -> Task[..., Any]:
        return task(name="given")(lambda: None)

    assert made().name == "given"
    assert function_name(plain.function, "") == "tests.tasks.test_task.plain"


def test_progress_outside_a_job_does_nothing() -> None:
    progress(0.5, "half")


def test_progress_is_kept_within_bounds() -> None:
    job = JobContext("1", "t", 1)
    token = current_job.set(job)
    progress(7, "much")
    assert job.reported == (1.0, "much")
    progress(-1)
    current_job.reset(token)
    assert job.reported == (0.0, "")


def test_snooze() -> None:
    assert Snooze("5m").seconds == 300
    with pytest.raises(ValueError, match="expected"):
        Snooze("soon")
