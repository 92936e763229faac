"""What people do with jobs: list, cancel and retry them, delete many, and pause queues."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple, get_args

import msgspec

from escala.database import Connection
from escala.database.statements import statement
from escala.tasks.store.jobs import MOST_COUNTED

State = Literal["scheduled", "waiting", "running", "succeeded", "failed", "cancelled"]
STATES: tuple[str, ...] = get_args(State)
_PURGED_AT_ONCE = 5000
_SEARCH_SECONDS = 10


class Summary(msgspec.Struct, kw_only=True):
    """A job in a list."""

    id: uuid.UUID
    task: str
    queue: str
    priority: int
    state: str
    attempt: int
    progress: float
    message: str
    error: str | None
    enqueued_at: datetime
    run_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    subject: str | None


class Search(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which jobs to list; None where it does not matter."""

    subject: str | None = None
    states: list[State] | None = None
    queue: str | None = None
    task: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: uuid.UUID | None = None
    """The last id of the page before."""
    limit: int = 50


class Watched(NamedTuple):
    """What a job does at this moment."""

    id: uuid.UUID
    state: str
    attempt: int
    progress: float
    message: str
    error: str | None

    @property
    def is_over(self) -> bool:
        return self.state in ("succeeded", "failed", "cancelled")


class Queue(NamedTuple):
    name: str
    waiting: int
    """At most MOST_COUNTED, as `running`."""
    running: int
    workers: int
    paused: bool


def _sql(name: str) -> str:
    return statement("escala.tasks", name)


async def search(connection: Connection, given: Search) -> list[Summary]:
    """Return jobs, the latest first. Raises asyncpg.QueryCanceledError if it takes longer than ten seconds."""
    async with connection.transaction():
        # The plan depends on what is given.
        await connection.execute("set local plan_cache_mode = force_custom_plan")
        await connection.execute(f"set local statement_timeout = {_SEARCH_SECONDS * 1000}")
        rows = await connection.fetch(
            _sql("search"),
            *(
                given.subject,
                given.states,
                given.queue,
                given.task,
                given.since,
                given.until,
                given.before,
                given.limit,
            ),
        )
    return [msgspec.convert(dict(row), Summary) for row in rows]


async def cancel(connection: Connection, job: uuid.UUID) -> Literal["cancelled", "asked"] | None:
    """Cancel a job that waits, or ask the worker of a running one to cancel it; None if the job has finished."""
    outcome: Literal["cancelled", "asked"] | None = await connection.fetchval(_sql("cancel"), job)
    return outcome


async def retry(connection: Connection, job: uuid.UUID) -> bool:
    """Let a job run again that failed or was cancelled, or a scheduled one at once. False if it is in no such state."""
    return bool(await connection.fetch(_sql("retry"), job))


async def purge(
    connection: Connection, states: Sequence[str], queue: str | None = None, task: str | None = None
) -> int:
    """Delete jobs that do not run, and return how many. They are gone without a trace."""
    deleted = 0
    for name in ("purge_waiting", "purge_finished"):
        while found := len(await connection.fetch(_sql(name), queue, task, states, _PURGED_AT_ONCE)):
            deleted += found
    return deleted


async def pause(connection: Connection, queue: str) -> bool:
    """Let no job of a queue begin until `resume`; return False if it was paused already."""
    return await connection.fetchval(_sql("pause"), queue) is not None


async def resume(connection: Connection, queue: str) -> bool:
    """Let the jobs of a queue begin again; return False if it was not paused."""
    return bool(await connection.fetch(_sql("resume"), queue))


async def queues(connection: Connection) -> list[Queue]:
    return [Queue(*row) for row in await connection.fetch(_sql("queues"), MOST_COUNTED)]


async def watch(connection: Connection, jobs: Sequence[uuid.UUID]) -> list[Watched]:
    """Return what jobs do at this moment. Those that do not exist are left out."""
    return [Watched(*row) for row in await connection.fetch(_sql("watch"), jobs)]
