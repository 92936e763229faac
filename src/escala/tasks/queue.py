"""The queue: jobs in PostgreSQL. Every function executes one statement.

A claim gives a job a lease: an owner (one start of a worker process), an attempt number, and the time when the lease
ends. Each later write passes the owner and the attempt. If they no longer match the job, the write changes nothing and
reports that.
"""

import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from escala.database import Connection
from escala.tasks.job import File, JobRecord, Output
from escala.tasks.sql import statement

LEASE_SECONDS = 10.0
CRASHES_FORGIVEN = 2
KEEP_FINISHED_SECONDS = 7 * 86400.0


class Claimed(NamedTuple):
    id: uuid.UUID
    task: str
    arguments: dict[str, Any]
    attempt: int


class Held(NamedTuple):
    """A job that this process is running, with its progress."""

    id: uuid.UUID
    attempt: int
    progress: float
    message: str


class Counts(NamedTuple):
    waiting: int
    running: int
    oldest_seconds: float


async def enqueue(
    connection: Connection, task: str, arguments: dict[str, Any], retries: int, delay: float = 0.0
) -> uuid.UUID:
    job: uuid.UUID = await connection.fetchval(statement("enqueue"), task, arguments, retries, delay)
    return job


async def claim(connection: Connection, owner: uuid.UUID, tasks: Sequence[str], limit: int) -> list[Claimed]:
    rows = await connection.fetch(statement("claim"), owner, tasks, limit, LEASE_SECONDS)
    return [Claimed(*row) for row in rows]


async def renew(connection: Connection, owner: uuid.UUID, held: Sequence[Held]) -> set[uuid.UUID]:
    """Extend leases and write progress; return the jobs that `owner` still holds."""
    ids, attempts, progress, messages = map(list, zip(*held, strict=True))
    texts = [_text(message) for message in messages]
    rows = await connection.fetch(statement("renew"), owner, LEASE_SECONDS, ids, attempts, progress, texts)
    return {row["id"] for row in rows}


async def succeed(
    connection: Connection, owner: uuid.UUID, job: uuid.UUID, attempt: int, output: Output, message: str
) -> bool:
    """Record a result with its files. Return False, without writing anything, if the lease was lost."""
    names, kinds, contents = _columns(output.files)
    done = await connection.fetchval(
        statement("succeed"), owner, job, attempt, output.result, _text(message), names, kinds, contents
    )
    return done is not None


async def retry(connection: Connection, owner: uuid.UUID, job: uuid.UUID, attempt: int, error: str) -> bool:
    """Put a job back into the queue for its next attempt. Return False if none is left or the lease was lost."""
    return await connection.fetchval(statement("retry"), owner, job, attempt, _text(error)) is not None


async def fail(connection: Connection, owner: uuid.UUID, job: uuid.UUID, attempt: int, error: str) -> bool:
    return await connection.fetchval(statement("fail"), owner, job, attempt, _text(error)) is not None


async def release(connection: Connection, owner: uuid.UUID, jobs: Sequence[uuid.UUID]) -> int:
    return len(await connection.fetch(statement("release"), owner, jobs))


async def rescue(connection: Connection) -> tuple[list[uuid.UUID], list[uuid.UUID]]:
    """Take back the jobs whose lease has expired.

    Returns the jobs that wait again, and those that have crashed too many workers and are now failed.
    """
    rows = await connection.fetch(statement("rescue"), CRASHES_FORGIVEN + 1)
    return [row["id"] for row in rows if row["again"]], [row["id"] for row in rows if not row["again"]]


async def find(connection: Connection, job: uuid.UUID) -> JobRecord | None:
    row = await connection.fetchrow(statement("find"), job)
    return msgspec.convert(dict(row), JobRecord) if row else None


async def find_file(connection: Connection, job: uuid.UUID, name: str) -> File | None:
    row = await connection.fetchrow(statement("find_file"), job, name)
    return File(name, row["media_type"], row["content"]) if row else None


async def prune(connection: Connection) -> None:
    await connection.execute(statement("prune"), KEEP_FINISHED_SECONDS)


async def count(connection: Connection) -> Counts:
    row = await connection.fetchrow(statement("count"))
    assert row is not None
    return Counts(*row)


async def backlog(connection: Connection, tasks: Sequence[str]) -> Counts:
    """Return the counts of the jobs of some tasks. Jobs that are not due yet are left out."""
    row = await connection.fetchrow(statement("backlog"), tasks)
    assert row is not None
    return Counts(*row)


def _columns(files: Sequence[File]) -> tuple[list[str], list[str], list[bytes]]:
    return [f.name for f in files], [f.media_type for f in files], [f.content for f in files]


def _text(text: str) -> str:
    """Return `text` with every character replaced that PostgreSQL cannot store."""
    whole = str(text).encode("utf-8", "replace").decode()
    return whole.replace("\0", "\N{REPLACEMENT CHARACTER}")
