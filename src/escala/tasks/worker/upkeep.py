"""Duties that any worker does for all: scheduled jobs become due, dead workers' jobs are rescued, old ones deleted."""

import asyncio
import logging

from escala.tasks.store import limits, upkeep, workers
from escala.tasks.worker.link import Link

log = logging.getLogger("escala.worker")

STAGE_SECONDS = 1.0
RESCUE_SECONDS = 2.0
UNBLOCK_SECONDS = 2.0
PRUNE_SECONDS = 60.0
_PRUNE_PAUSE = 0.2
"""Between two batches, so that other work comes in between."""
_STAGE_PAUSE = 0.02


class Upkeep:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._scheduled = asyncio.Event()

    def wake(self) -> None:
        """Look at the scheduled jobs again: one was announced."""
        self._scheduled.set()

    async def stage(self) -> float:
        """Let jobs wait that are due, and wait for the next one."""
        self._scheduled.clear()
        async with self._link.use() as connection:
            if await upkeep.stage(connection):
                return _STAGE_PAUSE
            due = await upkeep.next_due(connection)
        try:
            async with asyncio.timeout(STAGE_SECONDS if due is None else min(STAGE_SECONDS, max(0.0, due))):
                await self._scheduled.wait()
        except TimeoutError:
            return 0.0
        return _STAGE_PAUSE

    async def rescue(self) -> float:
        """Take back the jobs of workers that died."""
        async with self._link.use() as connection:
            rescued = await workers.rescue_expired(connection)
        report(rescued)
        return RESCUE_SECONDS

    async def unblock(self) -> float:
        """Let jobs go on that wait for others of their key, wherever that was not done when those ended."""
        async with self._link.use() as connection:
            for key in await limits.blocked_keys(connection):
                await limits.unblock(connection, key)
        return UNBLOCK_SECONDS

    async def prune(self) -> float:
        """Delete old finished jobs, a batch at a time."""
        async with self._link.use() as connection:
            more = await upkeep.prune(connection)
        return _PRUNE_PAUSE if more else PRUNE_SECONDS


def report(rescued: workers.Rescued) -> None:
    """Log what was rescued."""
    if rescued.again:
        listed = ", ".join(map(str, rescued.again[:5])) + (" ..." if len(rescued.again) > 5 else "")
        log.warning("a worker ended; %d of its jobs wait again: %s", len(rescued.again), listed)
    for job in rescued.poison:
        log.error("job %s: it ended every process that ran it alone; it is recorded as failed", job)
