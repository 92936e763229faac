"""Jobs of a task "t" in a queue "q", without workers."""

import uuid
from collections.abc import Sequence
from datetime import datetime

import msgspec

from escala.database import Connection
from escala.tasks.enqueuing import insert
from escala.tasks.ids import new_id
from escala.tasks.order import NewJob
from escala.tasks.store import attempts
from escala.tasks.store.attempts import BEGINNING, Claimed, Finished


async def enqueue(
    connection: Connection,
    *,
    queue: str = "q",
    priority: int = 0,
    retries: int = 3,
    at: datetime | None = None,
    after: float = 0.0,
    within: float | None = None,
    keep: float = 3600.0,
    **arguments: object,
) -> uuid.UUID:
    text = msgspec.json.encode(arguments).decode()
    row = NewJob(new_id(), "t", queue, -priority, text, retries, at, after, within, keep, None, None)
    await insert(connection, [row])
    return row.id


async def claim(
    connection: Connection, owner: uuid.UUID, most: int = 100, queues: Sequence[str] = ("q",)
) -> list[Claimed]:
    return await attempts.claim(connection, owner, [(queue, BEGINNING) for queue in queues], most)


def success(job: Claimed, result: str = "1") -> Finished:
    return Finished(job.id, job.attempt, "succeeded", result, None, "")


def failure(job: Claimed, error: str) -> Finished:
    return Finished(job.id, job.attempt, "failed", None, error, "")
