"""What waits in the queue of jobs, as PostgreSQL tells it."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import asyncpg
import msgspec

from escala.database import Connection
from escala.errors import EscalaError
from escala.processes.process import ProcessSpec
from escala.tasks import queue
from escala.tasks.queue import Counts

_LIST_SECONDS = 10.0
_AGAIN_SECONDS = 30.0
_ANSWER_SECONDS = 5.0


class Backlog:
    """Asks over a connection of its own; `url` is where PostgreSQL is."""

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._tasks: dict[str, list[str]] = {}
        self._not_before: dict[str, float] = {}
        """When a module that could not be loaded is tried again."""
        self._turn = asyncio.Lock()

    async def all(self) -> Counts | None:
        """Return the counts of all jobs; None where PostgreSQL does not answer."""
        return await self._ask(queue.count)

    async def of(self, target: str, spec: Callable[[], ProcessSpec]) -> Counts | None:
        """Return the counts of a worker's jobs; None where PostgreSQL does not answer, or it cannot be loaded.

        `spec` is how its replicas are started.
        """
        if target not in self._tasks and time.monotonic() >= self._not_before.get(target, 0.0):
            self._not_before[target] = time.monotonic() + _AGAIN_SECONDS
            with contextlib.suppress(EscalaError, OSError, ValueError):
                self._tasks[target] = await _list(spec())
        tasks = self._tasks.get(target)
        return None if tasks is None else await self._ask(lambda connection: queue.backlog(connection, tasks))

    def forget(self, target: str) -> None:
        """Look anew which tasks a worker has."""
        self._tasks.pop(target, None)
        self._not_before.pop(target, None)

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()

    async def _ask(self, question: Callable[[Connection], Awaitable[Counts]]) -> Counts | None:
        async with self._turn:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    if self._connection is None or self._connection.is_closed():
                        self._connection = await asyncpg.connect(self._url())
                    return await question(self._connection)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                return None


async def _list(spec: ProcessSpec) -> list[str]:
    """Ask a process of its own which tasks a module has: the supervisor imports nothing of the project."""
    process = await asyncio.create_subprocess_exec(
        *spec.argv,
        "--list",
        cwd=spec.cwd,
        env=dict(spec.environment),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_LIST_SECONDS):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    listed = [line for line in said.splitlines() if line.startswith(b"[")]  # a module may print at its import
    if process.returncode or not listed:
        raise EscalaError(f"{spec.name} cannot be loaded")
    return msgspec.json.decode(listed[-1], type=list[str])
