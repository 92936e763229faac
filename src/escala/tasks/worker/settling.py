"""Writes the outcomes of attempts. Those that come while one write is under way go into the next one together."""

import asyncio
import contextlib
import logging
import uuid
from collections import deque
from collections.abc import Sequence

import asyncpg

from escala.tasks.store import attempts as store
from escala.tasks.store import limits
from escala.tasks.store.attempts import Again, Finished, Given
from escala.tasks.store.workers import MOST_CRASHES
from escala.tasks.worker.attempt import Attempt, Outcome
from escala.tasks.worker.link import FAILURES, Link

log = logging.getLogger("escala.worker")

_MOST = 1000
_PAUSES = (0.1, 0.25, 0.5, 1.0, 2.0)
_UNSTORABLE = (
    asyncpg.DataError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.IntegrityConstraintViolationError,
    ValueError,
)

_Settled = tuple[Attempt, Outcome]


class Settler:
    """The outcomes of one worker that are not written yet."""

    def __init__(self, link: Link) -> None:
        self.succeeded = 0
        self.failed = 0
        self._link = link
        self._waiting: deque[_Settled] = deque()
        self._writing: list[_Settled] = []
        self._any = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def put(self, attempt: Attempt, outcome: Outcome) -> None:
        """Have an outcome written."""
        self._waiting.append((attempt, outcome))
        self._empty.clear()
        self._any.set()

    @property
    def jobs(self) -> list[uuid.UUID]:
        """The jobs whose outcomes are not written yet."""
        return [attempt.job.id for attempt, _ in (*self._writing, *self._waiting)]

    async def written(self) -> None:
        """Wait until all outcomes are written."""
        await self._empty.wait()

    async def write(self) -> float:
        """Wait for outcomes, and write them; keep trying while PostgreSQL is away."""
        await self._any.wait()
        batch = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
        parts = _parts(batch)
        self._writing = batch
        try:
            while parts:
                await self._write(parts[0])
                del parts[0]
        except BaseException:
            self._waiting.extendleft(reversed([each for part in parts for each in part]))
            raise
        finally:
            self._writing = []
        if not self._waiting:
            self._any.clear()
            self._empty.set()
        return 0.0

    async def _write(self, part: Sequence[_Settled]) -> None:
        tries = 0
        while True:
            try:
                return await self._write_once(part)
            except _UNSTORABLE as error:
                if len(part) > 1:
                    for each in part:
                        await self._write([each])
                    return None
                attempt, outcome = part[0]
                if outcome.state != "succeeded":
                    raise
                part = [(attempt, Outcome("failed", error=f"the result cannot be stored: {error}", counts=True))]
            except FAILURES as error:
                if not tries:
                    log.warning("outcomes of %d jobs cannot be written now: %s", len(part), error)
                await asyncio.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
                tries += 1

    async def _write_once(self, part: Sequence[_Settled]) -> None:
        # If the lease ends before PostgreSQL is back, nothing is written.
        if _is_special(*part[0]):
            await self._write_special(*part[0])
            return
        owner = part[0][0].owner
        finished: list[Finished] = []
        again: list[Again] = []
        given: list[Given] = []
        for attempt, outcome in part:
            job = attempt.job
            if outcome.state == "again":
                again.append(Again(job.id, job.attempt, outcome.pause, outcome.error, outcome.counts))
            elif outcome.state == "released":
                given.append(Given(job.id, job.attempt, attempt.began is not None))
            elif outcome.state != "lost":
                finished.append(_finished(attempt, outcome))
        ours: set[uuid.UUID] = set()
        async with self._link.use() as connection, connection.transaction():
            if finished:
                ours |= await store.finish(connection, owner, finished)
            if again:
                ours |= await store.again(connection, owner, again)
            if given:
                ours |= await store.release(connection, owner, given)
        await self._unblock({attempt.job.limit_key for attempt, _ in part if attempt.job.id in ours})
        for attempt, outcome in part:
            self._count(attempt, outcome, ours=attempt.job.id in ours)

    async def _unblock(self, keys: set[str | None]) -> None:
        """Let jobs go on that waited for these. Where this fails, `Upkeep.unblock` does it a little later."""
        with contextlib.suppress(*FAILURES):
            for key in sorted(filter(None, keys)):
                async with self._link.use() as connection:
                    await limits.unblock(connection, key)

    async def _write_special(self, attempt: Attempt, outcome: Outcome) -> None:
        """Write an outcome that takes more than one statement."""
        job, owner = attempt.job, attempt.owner
        async with self._link.use() as connection, connection.transaction():
            ours = outcome.state == "crashed" and await store.crash(
                connection, owner, job.id, job.attempt, outcome.error or "", MOST_CRASHES
            )
            if not ours:
                ours = bool(await store.finish(connection, owner, [_finished(attempt, outcome)]))
                if ours and outcome.files:
                    await store.add_files(connection, job.id, outcome.files)
        await self._unblock({job.limit_key})
        self._count(attempt, outcome, ours=ours)

    def _count(self, attempt: Attempt, outcome: Outcome, *, ours: bool) -> None:
        if outcome.state == "lost" or not ours:
            log.warning("%s lost its lease, so its outcome was discarded", attempt)
        elif outcome.state == "succeeded":
            self.succeeded += 1
        elif outcome.state != "released":
            self.failed += 1


def _is_special(attempt: Attempt, outcome: Outcome) -> bool:
    return bool(outcome.files) or outcome.state == "crashed"


def _parts(batch: Sequence[_Settled]) -> list[list[_Settled]]:
    """Split outcomes into those that are written together."""
    special = [[each] for each in batch if _is_special(*each)]
    plain: dict[uuid.UUID, list[_Settled]] = {}
    for each in batch:
        if not _is_special(*each):
            plain.setdefault(each[0].owner, []).append(each)
    return [*plain.values(), *special]


def _finished(attempt: Attempt, outcome: Outcome) -> Finished:
    job = attempt.job
    if outcome.state == "crashed":
        error = f"set aside: it ended {MOST_CRASHES} processes that ran nothing else; the last time, {outcome.error}"
        return Finished(job.id, job.attempt, "failed", None, error, attempt.context.reported[1])
    return Finished(job.id, job.attempt, outcome.state, outcome.result, outcome.error, attempt.context.reported[1])
