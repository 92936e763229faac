"""Gives the jobs of a worker that died to others at once, without waiting until its lease ends."""

import asyncio
from collections.abc import Callable

import asyncpg

from escala.background import report_bug
from escala.events import Emit, JobsRescued
from escala.tasks.store import workers

_ANSWER_SECONDS = 5.0


class JobRescue:
    """`url` returns PostgreSQL's URL, `node` the name of this supervisor, `is_worker` whether a process runs jobs."""

    def __init__(
        self, url: Callable[[], str], node: Callable[[], str], is_worker: Callable[[str], bool], emit: Emit
    ) -> None:
        self._url = url
        self._node = node
        self._is_worker = is_worker
        self._emit = emit
        self._rescues: set[asyncio.Task[None]] = set()

    def end_of(self, name: str, pid: int) -> None:
        """Begin the rescue of what a process was running. One that ended well has given it back already."""
        if self._is_worker(name):
            rescue = asyncio.create_task(self._rescue(name, pid), name=f"rescue of the jobs of {name}")
            self._rescues.add(rescue)
            rescue.add_done_callback(self._rescues.discard)

    async def stop(self) -> None:
        """Wait for rescues in progress."""
        await asyncio.gather(*self._rescues, return_exceptions=True)

    async def _rescue(self, name: str, pid: int) -> None:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                connection = await asyncpg.connect(self._url())
                try:
                    rescued = await workers.rescue_dead(connection, self._node(), pid)
                finally:
                    connection.terminate()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            return  # other workers rescue them when the lease ends
        except Exception as error:
            report_bug(f"the jobs of {name} cannot be rescued", error)
            return
        if rescued.again or rescued.poison:
            self._emit(JobsRescued(name, len(rescued.again), len(rescued.poison)))
