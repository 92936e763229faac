import uuid
from typing import Annotated

import msgspec
import pytest

from escala import database
from escala.database import Connection, Database
from escala.errors import NotConnected, TaskArguments
from escala.tasks import progress, queue, task
from escala.tasks.job import progress_of_attempt


@task
def plain(number: int, text: str = "x") -> str:
    return text * number


@task(name="renamed", retries=5, timeout="2s")
async def configured(month: Annotated[int, msgspec.Meta(ge=1, le=12)]) -> int:
    return month


def test_calling_a_task_runs_it_here() -> None:
    assert plain(2, text="ab") == "abab"


def test_what_a_task_knows() -> None:
    assert (plain.name, plain.retries, plain.timeout, plain.is_async) == ("plain", 3, 600, False)
    assert (configured.name, configured.retries, configured.timeout, configured.is_async) == ("renamed", 5, 2, True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "missing a required argument"),
        ({"month": 1, "extra": 2}, "unexpected keyword"),
        ({"month": 13}, "month: Expected `int` <= 12"),
        ({"month": "1"}, "month: Expected `int`"),
        ({"month": None}, "month: Expected `int`"),
        ({"self": 1, "month": 1}, "unexpected keyword"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict[str, object], reason: str) -> None:
    with pytest.raises(TaskArguments, match=reason):
        configured.arguments_of(**arguments)


def test_defaults_travel_too() -> None:
    assert plain.arguments_of(3) == {"number": 3, "text": "x"}


async def test_enqueue(pool: Database) -> None:
    database.slot.fill(pool)
    try:
        job = await plain.enqueue(2)
    finally:
        database.slot.empty()
    async with pool.connection() as connection:
        found = await queue.find(connection, uuid.UUID(job.id))
    assert found is not None
    assert (found.task, found.arguments) == ("plain", {"number": 2, "text": "x"})


async def test_enqueue_unconnected() -> None:
    with pytest.raises(NotConnected):
        await plain.enqueue(1)


async def test_a_job_belongs_to_the_callers_transaction(connection: Connection) -> None:
    transaction = connection.transaction()
    await transaction.start()
    job = await plain.enqueue_on(connection, 1)
    await transaction.rollback()
    assert await queue.find(connection, uuid.UUID(job.id)) is None


async def test_a_text_that_postgresql_cannot_hold(connection: Connection) -> None:
    with pytest.raises(TaskArguments, match="plain"):
        await plain.enqueue_on(connection, 1, text="\0")


def test_signatures_that_cannot_travel() -> None:
    with pytest.raises(TypeError, match="cannot be passed by name"):
        task(lambda *numbers: None)
    with pytest.raises(ValueError, match="retries"):
        task(retries=-1)(lambda: None)


def test_progress_outside_a_job_does_nothing() -> None:
    progress(0.5, "half")


def test_progress_is_kept_within_bounds() -> None:
    said: list[tuple[float, str]] = []
    token = progress_of_attempt.set(lambda fraction, message: said.append((fraction, message)))
    progress(7, "much")
    progress(-1)
    progress_of_attempt.reset(token)
    assert said == [(1.0, "much"), (0.0, "")]
