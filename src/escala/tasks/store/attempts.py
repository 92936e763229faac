"""What a worker does with jobs: claims them, and records how their attempts went."""

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from escala.database import Connection
from escala.database.statements import statement
from escala.tasks.job import File


class Mark(NamedTuple):
    """A place in a queue. A claim looks only after it."""

    rank: int
    run_at: datetime
    seq: int


BEGINNING = Mark(-(2**15), datetime(1, 1, 1, tzinfo=UTC), 0)


class Claimed(NamedTuple):
    """The order is that of the columns of claim.sql."""

    id: uuid.UUID
    task: str
    arguments: str
    attempt: int
    failures: int
    retries: int
    trace: str | None
    expired: bool | None
    queue: str
    rank: int
    run_at: datetime
    seq: int
    limit_key: str | None = None
    limit_most: int | None = None
    paid: bool = False
    """Whether it has waited for its turn already."""

    @property
    def mark(self) -> Mark:
        return Mark(self.rank, self.run_at, self.seq)


class Finished(NamedTuple):
    """An attempt after which the job is finished."""

    id: uuid.UUID
    attempt: int
    state: str
    """succeeded, failed or cancelled"""
    result: str | None
    """JSON"""
    error: str | None
    message: str


class Again(NamedTuple):
    """An attempt after which the job is tried again."""

    id: uuid.UUID
    attempt: int
    pause: float
    """Seconds until then."""
    error: str | None
    failed: bool
    """Whether the attempt counts as a failure."""


class Given(NamedTuple):
    """An attempt that is given back."""

    id: uuid.UUID
    attempt: int
    began: bool


class Held(NamedTuple):
    id: uuid.UUID
    attempt: int
    cancelled: bool


class Told(NamedTuple):
    """The progress of an attempt."""

    id: uuid.UUID
    attempt: int
    progress: float
    message: str


def _sql(name: str) -> str:
    return statement("escala.tasks", name)


def _columns(rows: Sequence[tuple[object, ...]]) -> Iterable[list[object]]:
    return map(list, zip(*rows, strict=True))


async def claim(
    connection: Connection, owner: uuid.UUID, turns: Sequence[tuple[str, Mark]], most: int
) -> list[Claimed]:
    """Claim at most `most` waiting jobs of some queues, from the first queue as many as possible."""
    marks = _columns([mark for _, mark in turns])
    rows = await connection.fetch(_sql("claim"), owner, [queue for queue, _ in turns], *marks, most)
    return [Claimed(*row) for row in rows]


async def claim_suspects(connection: Connection, owner: uuid.UUID, queues: Sequence[str], most: int) -> list[Claimed]:
    """Claim jobs whose last attempt ended with its process. Each is to run in a process of its own."""
    rows = await connection.fetch(_sql("claim_suspects"), owner, queues, most)
    return [Claimed(*row) for row in rows]


async def finish(connection: Connection, owner: uuid.UUID, rows: Sequence[Finished]) -> set[uuid.UUID]:
    """Record outcomes; return the jobs that `owner` still held. Nothing is written of the others."""
    if all(row.state == "succeeded" and not row.message for row in rows):  # most often
        ids, attempts, _, results, *_ = _columns(rows)
        found = await connection.fetch(_sql("succeed"), owner, ids, attempts, results)
        return {row[0] for row in found}
    found = await connection.fetch(_sql("finish"), owner, *_columns([_storable(row) for row in rows]))
    return {row[0] for row in found}


async def add_files(connection: Connection, job: uuid.UUID, files: Sequence[File]) -> None:
    """Store the files of a finished job."""
    columns = _columns([(file.name, file.media_type, file.content) for file in files])
    await connection.execute(_sql("file"), job, *columns)


async def again(connection: Connection, owner: uuid.UUID, rows: Sequence[Again]) -> set[uuid.UUID]:
    """Put jobs back into the queue for another attempt; return those that `owner` still held."""
    found = await connection.fetch(
        _sql("again"), owner, *_columns([row._replace(error=storable(row.error)) for row in rows])
    )
    return {row[0] for row in found}


async def release(connection: Connection, owner: uuid.UUID, rows: Sequence[Given]) -> set[uuid.UUID]:
    """Give jobs back; return those that `owner` still held."""
    found = await connection.fetch(_sql("release"), owner, *_columns(rows))
    return {row[0] for row in found}


async def crash(connection: Connection, owner: uuid.UUID, job: uuid.UUID, attempt: int, error: str, most: int) -> bool:
    """Charge a job with the end of the process that ran it alone; return False if it may not be tried again."""
    return await connection.fetchval(_sql("crash"), owner, job, attempt, storable(error), most) is not None


async def let_go(connection: Connection, owner: uuid.UUID, known: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Give back the jobs that `owner` has in the database, but does not know of; return them."""
    return {row[0] for row in await connection.fetch(_sql("let_go"), owner, known)}


async def held(connection: Connection, owner: uuid.UUID, jobs: Sequence[uuid.UUID]) -> list[Held]:
    return [Held(*row) for row in await connection.fetch(_sql("held"), owner, jobs)]


async def tell(connection: Connection, owner: uuid.UUID, rows: Sequence[Told]) -> None:
    """Write progress. A progress of an attempt that is not the job's any more is not written."""
    columns = _columns([row._replace(message=storable(row.message) or "") for row in rows])
    await connection.execute(_sql("progress"), owner, *columns)


def _storable(row: Finished) -> Finished:
    return row._replace(error=storable(row.error), message=storable(row.message) or "")


def storable(text: str | None) -> str | None:
    """Return `text` with every character replaced that PostgreSQL cannot store."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
