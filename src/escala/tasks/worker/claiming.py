"""Claims jobs: as many as the worker can begin, and a few more where jobs are short."""

import asyncio
import contextlib
import logging
import random
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Protocol

from escala.database import Connection
from escala.tasks.store import attempts as store
from escala.tasks.store import limits
from escala.tasks.store.attempts import BEGINNING, Claimed, Mark
from escala.tasks.worker.link import Link

log = logging.getLogger("escala.worker")

POLL_SECONDS = 1.0
"""A worker looks for jobs so often even if nothing was announced."""
_MOST = 1000
_FULL_SHARE = 20
"""At most one part in so many of the time goes into looking at a queue from its beginning."""


RateOf = Callable[[str], tuple[int, float] | None]
"""Returns the rate of a task: how many jobs begin in how many seconds."""


class Takes(Protocol):
    """What takes the claimed jobs."""

    @property
    def owner(self) -> uuid.UUID: ...

    def room(self) -> int:
        """Return how many more jobs are wanted."""
        ...

    def take(self, jobs: list[Claimed]) -> None: ...

    def known(self) -> list[uuid.UUID]:
        """Return all jobs that it has taken, and whose outcomes are not written."""
        ...

    @property
    def room_alone(self) -> int:
        """How many more jobs can run in processes of their own."""
        ...

    def take_alone(self, jobs: list[Claimed]) -> None: ...


class Claimer:
    """Claims the jobs of some queues. `queues` gives their weights: how often each has the first turn.

    After a claim, the next one looks only behind the jobs that it found. PostgreSQL keeps the index entries of jobs
    that are gone as long as any transaction may see them, and would walk over them each time. From time to time a
    claim looks at the whole queue: for jobs of a higher priority, and those that were committed late.
    """

    def __init__(self, link: Link, queues: Mapping[str, float], taker: Takes, rate_of: RateOf) -> None:
        self.reached_at = time.monotonic()
        """time.monotonic() of the latest claim."""
        self._link = link
        self._queues = dict(queues)
        self._taker = taker
        self._rate_of = rate_of
        self._marks: dict[str, Mark] = dict.fromkeys(queues, BEGINNING)
        self._full_at = 0.0
        self._wake = asyncio.Event()
        self._wake_alone = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._closed = False
        self._is_sure = True
        """Whether all that this worker has in the database was handed over to it."""

    def wake(self) -> None:
        """Look for jobs at once: some were announced, or there is room again."""
        self._wake.set()

    def wake_alone(self) -> None:
        """Look for suspects at once: there is room for another one."""
        self._wake_alone.set()

    async def close(self) -> None:
        """Claim nothing any more; return when no claim is under way."""
        self._closed = True
        self._wake.set()
        async with self._claiming:
            pass

    async def claim(self) -> float:
        """Claim once, and return the seconds until the next time. A wake-up ends the wait before that."""
        if self._closed:
            await asyncio.Event().wait()
        self._wake.clear()
        pause = await self._claim_once()
        if pause:
            await _wait(self._wake, pause)
        return 0.0

    async def claim_suspects(self) -> float:
        """Claim jobs that are to run in processes of their own, once, and wait until the next time."""
        self._wake_alone.clear()
        async with self._claiming:
            room = self._taker.room_alone
            if room > 0 and not self._closed:
                await self._make_sure()
                self._is_sure = False
                owner = self._taker.owner
                async with self._link.use() as connection:
                    found = await store.claim_suspects(connection, owner, list(self._queues), room)
                    self._taker.take_alone(await self._admitted(connection, owner, found))
                self._is_sure = True
        await _wait(self._wake_alone, POLL_SECONDS)
        return 0.0

    async def _claim_once(self) -> float:
        async with self._claiming:
            most = min(_MOST, self._taker.room())
            if self._closed or most <= 0:
                return POLL_SECONDS
            await self._make_sure()
            self._is_sure = False
            began = time.monotonic()
            is_full = began >= self._full_at
            turns = [(queue, BEGINNING if is_full else self._marks[queue]) for queue in self._order()]
            owner = self._taker.owner
            async with self._link.use() as connection:
                found = await store.claim(connection, owner, turns, most)
                admitted = await self._admitted(connection, owner, found)
            self.reached_at = ended = time.monotonic()
            if is_full:
                self._full_at = ended + _FULL_SHARE * (ended - began)
                self._marks = dict.fromkeys(self._queues, BEGINNING)
            for job in found:
                if (job.rank, job.run_at, job.seq) > self._marks[job.queue]:
                    self._marks[job.queue] = job.mark
            self._taker.take(admitted)
            self._is_sure = True
        if len(found) == most:
            return 0.0
        return POLL_SECONDS if is_full else max(0.0, self._full_at - ended)

    async def _make_sure(self) -> None:
        """After a claim that failed, give back what it may have taken all the same."""
        if not self._is_sure:
            async with self._link.use() as connection:
                lost = await store.let_go(connection, self._taker.owner, self._taker.known())
            if lost:
                log.warning("the answer to a claim was lost; %d jobs were given back", len(lost))

    async def _admitted(self, connection: Connection, owner: uuid.UUID, jobs: list[Claimed]) -> list[Claimed]:
        """Return those jobs that may begin. Those over a limit of their task wait again."""
        by_task: dict[str, list[Claimed]] = {}
        by_key: dict[str, list[Claimed]] = {}
        for job in jobs:
            if not job.paid and self._rate_of(job.task) is not None:
                by_task.setdefault(job.task, []).append(job)
            elif job.limit_key is not None:
                by_key.setdefault(job.limit_key, []).append(job)
        if not by_task and not by_key:
            return jobs
        refused: set[uuid.UUID] = set()
        for task, some in by_task.items():
            rate = self._rate_of(task)
            assert rate is not None
            begin = await limits.take_turns(connection, owner, task, rate, some)
            refused |= {job.id for job in some} - begin
            for job in some:
                if job.id in begin and job.limit_key is not None:
                    by_key.setdefault(job.limit_key, []).append(job)
        for key, some in sorted(by_key.items()):
            refused |= {job.id for job in some} - await limits.admit(connection, owner, key, some)
        return [job for job in jobs if job.id not in refused]

    def _order(self) -> list[str]:
        """Return the queues in a random order in which each comes first as often as its weight says."""
        if len(self._queues) == 1:
            return list(self._queues)
        return sorted(self._queues, key=lambda queue: -(random.random() ** (1 / self._queues[queue])))  # noqa: S311


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, at most so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
