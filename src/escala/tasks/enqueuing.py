"""Writes new jobs. Those of concurrent callers are written together, which takes one commit."""

import asyncio
import contextvars
import io
import weakref
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import asyncpg
import msgspec

from escala.database import Connection, Database
from escala.database.statements import statement
from escala.errors import DatabaseUnavailable, TaskArguments
from escala.tasks.job import Job

if TYPE_CHECKING:
    from escala.tasks.order import NewJob

_MOST = 1000
"""Jobs in one statement."""
_MANY = 20
"""From so many jobs on, COPY is faster."""
_COPIED = (
    *("id", "task", "queue", "rank", "arguments", "retries", "keep"),
    *("subject", "trace", "limit_key", "limit_most"),
)


async def insert(connection: Connection, rows: "Sequence[NewJob]") -> None:
    """Write jobs on a connection, and announce them to the workers when its transaction is committed."""
    if not rows:
        return
    try:
        if len(rows) >= _MANY and all(row.at is None and not row.after and row.within is None for row in rows):
            await _copy(connection, rows)
            return
        await connection.execute(statement("escala.tasks", "enqueue"), as_json(rows))
    except asyncpg.DataError as error:
        if len({row.task for row in rows}) == 1:
            raise TaskArguments(rows[0].task, str(error)) from None
        raise


def as_json(rows: "Sequence[NewJob]") -> str:
    """Return jobs as enqueue.sql takes them."""
    return msgspec.json.encode([row._asdict() for row in rows]).decode()


async def _copy(connection: Connection, rows: "Sequence[NewJob]") -> None:
    """Write many jobs that are due now, by COPY, which takes a third of the time of an INSERT."""
    lines = ["\t".join([_text(getattr(row, name)) for name in _COPIED]) for row in rows]
    async with connection.transaction():
        await connection.copy_to_table(
            "job",
            schema_name="escala",
            source=io.BytesIO("\n".join(lines).encode()),
            columns=_COPIED,
        )
        await connection.execute(statement("escala.tasks", "announce"), list({row.queue for row in rows}))


def _text(value: object) -> str:
    """Return a value in the text format of COPY (PostgreSQL manual, "COPY", section "Text Format")."""
    if value is None:
        return "\\N"
    text = str(value)
    if "\\" in text or "\n" in text or "\t" in text or "\r" in text:
        for plain, escaped in (("\\", "\\\\"), ("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r")):
            text = text.replace(plain, escaped)
    return text


async def insert_unique(connection: Connection, row: "NewJob", key: str, seconds: float) -> Job:
    """Write a job unless one of its key exists; return the one that does."""
    async with connection.transaction():
        await connection.execute(statement("escala.tasks", "lock_unique"), key)
        taken = await connection.fetchval(statement("escala.tasks", "unique"), key, row.id, seconds)
        if taken is not None:
            await insert(connection, [row])
            return Job(str(row.id), row.task)
        holder = await connection.fetchval(statement("escala.tasks", "unique_holder"), key)
    return Job(str(holder), row.task, is_new=False)


class Enqueuer:
    """The new jobs of one process that wait to be written."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[tuple[Sequence[NewJob], asyncio.Future[None]]] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def put(self, rows: "Sequence[NewJob]") -> None:
        """Write jobs; return when they are committed. All jobs of one call are written, or none."""
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, written))
        if self._writing is None:
            # Without the context of this caller: the writer works for others, too.
            self._writing = asyncio.create_task(self._write(), name="enqueue", context=contextvars.Context())
        await written

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft()]
                size = len(batch[0][0])
                while self._waiting and size + len(self._waiting[0][0]) <= _MOST:
                    batch.append(self._waiting.popleft())
                    size += len(batch[-1][0])
                await self._write_batch(batch)
        finally:
            self._writing = None

    async def _write_batch(self, batch: "list[tuple[Sequence[NewJob], asyncio.Future[None]]]") -> None:
        error: BaseException | None = None
        try:
            async with self._database.connection() as connection:
                await insert(connection, [row for rows, _ in batch for row in rows])
        except (asyncpg.DataError, TaskArguments) as wrong:
            if len(batch) > 1:  # one of them is at fault
                for each in batch:
                    await self._write_batch([each])
                return
            error = wrong
        except (OSError, asyncpg.InterfaceError) as broken:  # the connection broke in the middle
            error = DatabaseUnavailable(str(broken) or type(broken).__name__)
        except BaseException as failed:
            error = failed
        for _, written in batch:
            if written.done():  # its caller was cancelled
                continue
            if error is None:
                written.set_result(None)
            elif isinstance(error, asyncio.CancelledError):
                written.cancel()
            else:
                written.set_exception(error)
        if isinstance(error, asyncio.CancelledError):
            raise error


_enqueuers: "weakref.WeakKeyDictionary[Database, Enqueuer]" = weakref.WeakKeyDictionary()


def enqueuer(database: Database) -> Enqueuer:
    found = _enqueuers.get(database)
    if found is None:
        found = _enqueuers[database] = Enqueuer(database)
    return found
