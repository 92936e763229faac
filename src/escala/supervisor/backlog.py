"""What waits in the queue of jobs, as PostgreSQL tells it."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg

from escala.config import Service
from escala.database import Connection
from escala.errors import EscalaError
from escala.supervisor.replica import program_path
from escala.tasks import queue
from escala.tasks.queue import Counts

_LIST_SECONDS = 30.0
_ANSWER_SECONDS = 5.0


class Backlog:
    """Asks over a connection of its own; `url` is where PostgreSQL is."""

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._tasks: dict[tuple[str, Path], list[str]] = {}
        self._turn = asyncio.Lock()

    async def all(self) -> Counts | None:
        """Return the counts of all jobs; None where PostgreSQL does not answer."""
        return await self._ask(queue.count)

    async def of(self, service: Service, folder: Path) -> Counts | None:
        """Return the counts of a worker's jobs; None where PostgreSQL does not answer, or it cannot be loaded."""
        try:
            known = self._tasks.get((service.target, folder))
            tasks = known if known is not None else await self._list(service.target, folder)
        except (EscalaError, OSError, ValueError):
            return None
        return await self._ask(lambda connection: queue.backlog(connection, tasks))

    def forget(self, service: Service) -> None:
        """Look anew which tasks a worker has."""
        self._tasks = {place: names for place, names in self._tasks.items() if place[0] != service.target}

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

    async def _list(self, target: str, folder: Path) -> list[str]:
        """Ask a process of its own which tasks a module has: the supervisor imports nothing of the project."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "escala.replica", "tasks", target, "--root", str(folder), "--list",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env={"PATH": program_path()},
        )  # fmt: skip
        try:
            async with asyncio.timeout(_LIST_SECONDS):
                said, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            raise EscalaError(f"{target} cannot be loaded")
        names: list[str] = json.loads(said.splitlines()[-1])
        self._tasks[target, folder] = names
        return names
