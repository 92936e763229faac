"""A task with the options of one enqueue: when the job is due, in which queue, on whose connection."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar

import asyncpg
import asyncpg.pool

from escala import database
from escala.http.request_context import subject_of_request, trace_of_request
from escala.tasks import enqueuing, foreign
from escala.tasks.context import current_job
from escala.tasks.ids import new_id
from escala.tasks.job import Job
from escala.units import parse_duration

if TYPE_CHECKING:
    from escala.tasks.task import Task

P = ParamSpec("P")
R = TypeVar("R")

HIGHEST_PRIORITY = 1000


class NewJob(NamedTuple):
    """A row for the queue, with the names that enqueue.sql knows."""

    id: uuid.UUID
    task: str
    queue: str
    rank: int
    arguments: str
    retries: int
    at: datetime | None
    after: float
    within: float | None
    keep: float
    subject: str | None
    trace: str | None
    limit_key: str | None = None
    limit_most: int | None = None


@dataclass(frozen=True)
class Options:
    at: datetime | None = None
    after: float = 0.0
    priority: int = 0
    queue: str = ""
    expires: float | None = None
    keep: float = 7 * 86400.0
    connection: Any = None


def _is_asyncpg(connection: Any) -> bool:
    return isinstance(connection, asyncpg.Connection | asyncpg.pool.PoolConnectionProxy)


def _jobs(rows: Iterable[NewJob]) -> list[Job]:
    return [Job(str(row.id), row.task) for row in rows]


def priority_in_range(priority: int) -> int:
    """Raise ValueError for a priority that is out of range."""
    if not -HIGHEST_PRIORITY <= priority <= HIGHEST_PRIORITY:
        raise ValueError(f"a priority is from -{HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}, not {priority}")
    return priority


class Order(Generic[P, R]):
    """What `Task.with_options` returns: the same task, enqueued with these options."""

    def __init__(self, task: "Task[P, R]", options: Options) -> None:
        self._task = task
        self._options = options

    async def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Create a job that calls the function with these arguments, and return it.

        When this returns, the job is committed, and a worker will run it. With a `connection`, the job belongs to its
        open transaction instead: it exists once that is committed, and never if it is rolled back.

        Raises TaskArguments if the arguments do not fit the function or cannot be kept, NotConnected before the
        database is connected, DatabaseUnavailable if PostgreSQL is unavailable, and PoolExhausted if no connection
        becomes free in time.
        """
        [job] = await self._put(*self._one(args, kwargs))
        return job

    async def enqueue_many(self, calls: Iterable[Mapping[str, Any]], /) -> list[Job]:
        """Create a job for each call, given as a dict of its arguments, in one transaction; return the jobs.

        Errors are those of `enqueue`. If one is raised, no job exists. Jobs of a task with `unique` are made one by
        one, each in a transaction of its own.
        """
        if self._task.limits.unique is not None:
            return [(await self._put(*self._one((), call)))[0] for call in calls]
        return await self._put(self._many(calls))

    def enqueue_sync(self, /, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Do what `enqueue` does, and wait for it: for plain code, as in Django or Flask.

        With a `connection` of SQLAlchemy, psycopg or Django, the job belongs to its open transaction. Without one, the
        database of `escala.running` is used. Raises CalledOnLoop on an event loop's thread, and what `enqueue` raises.
        """
        [job] = self._put_sync(*self._one(args, kwargs))
        return job

    def enqueue_many_sync(self, calls: Iterable[Mapping[str, Any]], /) -> list[Job]:
        """Do what `enqueue_many` does, and wait for it."""
        if self._task.limits.unique is not None:
            return [self._put_sync(*self._one((), call))[0] for call in calls]
        return self._put_sync(self._many(calls))

    def new_job(self) -> NewJob:
        """Return the row of a job of the task with the defaults of all arguments."""
        return self._rows([self._task.arguments.encoded((), {})])[0]

    def _one(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[list[NewJob], str | None]:
        """Return the row of a call, and the key of which only one job is made."""
        text, arguments = self._task.arguments.encoded(args, kwargs)
        return self._rows([(text, arguments)]), self._task.limits.unique_key(arguments, text)

    def _many(self, calls: Iterable[Mapping[str, Any]]) -> list[NewJob]:
        encoded = self._task.arguments.encoded
        return self._rows(encoded((), call) for call in calls)

    async def _put(self, rows: list[NewJob], unique: str | None = None) -> list[Job]:
        connection, seconds = self._options.connection, self._task.limits.unique_for
        if connection is None:
            if unique is None:
                await enqueuing.enqueuer(database.slot.get()).put(rows)
                return _jobs(rows)
            async with database.connection() as lent:
                return [await enqueuing.insert_unique(lent, rows[0], unique, seconds)]
        if _is_asyncpg(connection):
            if unique is not None:
                return [await enqueuing.insert_unique(connection, rows[0], unique, seconds)]
            await enqueuing.insert(connection, rows)
            return _jobs(rows)
        if not foreign.is_async(connection):
            raise TypeError(f"a {type(connection).__qualname__} is not async; use enqueue_sync")
        return await foreign.run_async(connection, foreign.steps(rows, unique, seconds))

    def _put_sync(self, rows: list[NewJob], unique: str | None = None) -> list[Job]:
        connection = self._options.connection
        if connection is None:
            from escala.cache.system import wait_in_thread  # it takes memory, which async apps without a cache save

            return wait_in_thread(self._put(rows, unique), "enqueue_sync")
        if _is_asyncpg(connection) or foreign.is_async(connection):
            raise TypeError(f"a {type(connection).__qualname__} is async; use enqueue")
        return foreign.run_sync(connection, foreign.steps(rows, unique, self._task.limits.unique_for))

    def _rows(self, calls: Iterable[tuple[str, Mapping[str, Any]]]) -> list[NewJob]:
        """Return the rows of calls, each given by its arguments as JSON and by name."""
        task, options, job = self._task, self._options, current_job.get(None)
        # The same for all calls, so looked up once.
        name, queue, rank, retries = task.name, options.queue, -options.priority, task.retries.most
        at, after, within, keep = options.at, options.after, options.expires, options.keep
        subject, trace = subject_of_request.get(), job.trace if job is not None else trace_of_request.get()
        key, most = task.limits.key, task.limits.concurrency
        return [
            NewJob(
                *(new_id(), name, queue, rank, text, retries, at, after, within, keep, subject, trace),
                *(key(arguments), most),
            )
            for text, arguments in calls
        ]


def changed(
    options: Options,
    *,
    at: datetime | None,
    after: str | timedelta | None,
    priority: int | None,
    queue: str | None,
    expires: str | None,
    connection: Any,
) -> Options:
    """Return options with those replaced that are given. Raises ValueError for one that is not possible."""
    if at is not None and after is not None:
        raise ValueError("give either at= or after=, not both")
    if at is not None and at.tzinfo is None:
        raise ValueError(f"at={at.isoformat()} has no time zone, so it may be any of 24 hours; give it a tzinfo")
    seconds = after.total_seconds() if isinstance(after, timedelta) else parse_duration(after) if after else 0.0
    if seconds < 0:
        raise ValueError("after= is a time to wait, so it cannot be negative")
    return replace(
        options,
        at=at,
        after=seconds,
        priority=options.priority if priority is None else priority_in_range(priority),
        queue=queue or options.queue,
        expires=parse_duration(expires) if expires else options.expires,
        connection=connection,
    )
