"""What callers and operators ask of the queue."""

import uuid
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from escala.database import Connection
from escala.database.statements import statement
from escala.tasks.job import File, JobRecord

MOST_COUNTED = 10_000
"""Counting stops there: to count a long queue would be more work than to shorten it."""


class Counts(NamedTuple):
    """Numbers of jobs, at most MOST_COUNTED each."""

    waiting: int
    """Due, and not claimed yet."""
    running: int
    oldest_seconds: float
    """How long the one that is claimed next has waited."""


def _sql(name: str) -> str:
    return statement("escala.tasks", name)


async def find(connection: Connection, job: uuid.UUID) -> JobRecord | None:
    row = await connection.fetchrow(_sql("find"), job)
    return msgspec.convert(dict(row), JobRecord) if row else None


async def find_file(connection: Connection, job: uuid.UUID, name: str) -> File | None:
    row = await connection.fetchrow(_sql("find_file"), job, name)
    return File(name, row["media_type"], row["content"]) if row else None


async def count(connection: Connection) -> Counts:
    """Count the jobs of all queues."""
    return await _counts(connection, _sql("count"), MOST_COUNTED)


async def backlog(connection: Connection, queues: Sequence[str]) -> Counts:
    """Count the jobs of some queues."""
    return await _counts(connection, _sql("backlog"), queues, MOST_COUNTED)


async def _counts(connection: Connection, query: str, *arguments: object) -> Counts:
    row = await connection.fetchrow(query, *arguments)
    assert row is not None
    return Counts(*row)
