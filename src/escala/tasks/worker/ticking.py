"""Makes the jobs of tasks with a cron, once per tick over all workers."""

import asyncio
import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from escala.tasks.store import cron as store
from escala.tasks.task import Task
from escala.tasks.worker.link import Link

log = logging.getLogger("escala.worker")

_LONGEST = 30.0
"""A worker looks at least so often, as clocks differ and may be set."""


class Ticker:
    def __init__(self, link: Link, tasks: Iterable[Task[..., Any]]) -> None:
        self._link = link
        self._tasks = [task for task in tasks if task.cron is not None]

    async def tick(self) -> float:
        """Make the jobs that are due; return the seconds until the next tick, by the clock of the database."""
        if not self._tasks:
            await asyncio.Event().wait()
        pause = _LONGEST
        for task in self._tasks:
            async with self._link.use() as connection:
                now, latest = await store.last_tick(connection, task.name)
                assert task.cron is not None
                if latest is None:
                    await store.tick(connection, task.name, now, None)  # the first tick is the next one
                elif (due := _due(task, latest, now)) is not None:
                    row = task.new_job()
                    if await store.tick(connection, task.name, due, row):
                        log.info("%s: the tick of %s made job %s", task.name, due.isoformat(), row.id)
                pause = min(pause, (task.cron.after(now) - now).total_seconds())
        return max(0.01, pause)


def _due(task: Task[..., Any], latest: datetime, now: datetime) -> datetime | None:
    """Return the last tick until `now` if it came after `latest`: earlier ones that were missed are not made up for."""
    assert task.cron is not None
    if task.cron.after(latest) > now:
        return None
    tick = task.cron.before(now)
    following = task.cron.after(tick)
    return following if following <= now else tick
