"""The backlog of the job queue, as counted in PostgreSQL."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence

import asyncpg
import msgspec

from escala.background import report_bug
from escala.database import Connection
from escala.errors import EscalaError, ProcessFailed
from escala.processes.capture import output_of
from escala.processes.process import ProcessSpec
from escala.tasks.listing import ListedTask
from escala.tasks.store import jobs
from escala.tasks.store.jobs import Counts

_LIST_SECONDS = 10.0
_RETRY_SECONDS = 30.0
_ANSWER_SECONDS = 5.0


class Backlog:
    """Queries PostgreSQL over a connection of its own. `url` returns PostgreSQL's URL."""

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._queues: dict[str, list[str]] = {}
        self._listing: dict[str, asyncio.Task[None]] = {}
        """Per module, the task that currently lists its queues. That may take seconds."""
        self._not_before: dict[str, float] = {}
        """Per module, the earliest time of the next attempt to list its queues."""
        self._turn = asyncio.Lock()

    async def all(self) -> Counts | None:
        """Return the counts of all jobs; None if PostgreSQL does not answer."""
        return await self._ask(jobs.count)

    async def of(self, target: str, queues: Sequence[str], spec: Callable[[], ProcessSpec]) -> Counts | None:
        """Return the counts of the jobs of a worker's queues; if none is named, of those of its tasks.

        Return None while its queues are not known yet, or if PostgreSQL does not answer. `spec` returns the command
        that starts its replicas.
        """
        known = queues or self._queues.get(target)
        if known is not None:
            return await self._ask(lambda connection: jobs.backlog(connection, known))
        if target not in self._listing and time.monotonic() >= self._not_before.get(target, 0.0):
            self._listing[target] = asyncio.create_task(self._list(target, spec), name=f"queues of {target}")
        return None

    def forget(self, target: str) -> None:
        """Forget a worker's queues, so that they are listed again."""
        self._queues.pop(target, None)
        self._not_before.pop(target, None)

    async def close(self) -> None:
        for listing in list(self._listing.values()):
            listing.cancel()
        await asyncio.gather(*self._listing.values(), return_exceptions=True)
        if self._connection is not None:
            self._connection.terminate()

    async def _list(self, target: str, spec: Callable[[], ProcessSpec]) -> None:
        """List the queues of a module's tasks in a separate process.

        The supervisor never imports the project's code.
        """
        self._not_before[target] = time.monotonic() + _RETRY_SECONDS
        try:
            self._queues[target] = _queues_in(await output_of(spec(), "--list", seconds=_LIST_SECONDS), target)
        except (EscalaError, OSError, ValueError):
            pass  # the worker's replicas report the same problem more visibly
        except Exception as error:
            report_bug(f"the queues of {target} cannot be listed", error)
        finally:
            del self._listing[target]

    async def _ask(self, question: Callable[[Connection], Awaitable[Counts]]) -> Counts | None:
        async with self._turn:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    if self._connection is None or self._connection.is_closed():
                        self._connection = await asyncpg.connect(self._url())
                    return await question(self._connection)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                return None


def _queues_in(lines: list[str], target: str) -> list[str]:
    """Return the queues of the last line that lists tasks. A module may print other lines when it is imported."""
    for line in reversed(lines):
        with contextlib.suppress(msgspec.MsgspecError):
            listed = msgspec.json.decode(line, type=dict[str, ListedTask])
            return sorted({task.queue for task in listed.values()})
    raise ProcessFailed(target, "printed no list of tasks")
