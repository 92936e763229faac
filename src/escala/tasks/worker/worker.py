"""The worker: claims jobs, runs them, renews their leases, and takes back the jobs of dead workers.

Each duty has a loop of its own. While PostgreSQL is unavailable, the loop keeps trying. Any other error in a loop is
printed and ends the process; the supervisor then starts a new one.
"""

import asyncio
import logging
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import asyncpg

from escala.background import BackgroundLoop
from escala.database import Database
from escala.errors import DatabaseUnavailable, TaskArguments
from escala.tasks import queue
from escala.tasks.job import Output
from escala.tasks.queue import Claimed, Held
from escala.tasks.task import Task
from escala.tasks.worker.handler_thread import AttemptTimedOut, HandlerThread

log = logging.getLogger("escala.worker")

POLL_SECONDS = 0.25
RENEW_SECONDS = 0.5
RESCUE_SECONDS = 2.0
PRUNE_SECONDS = 60.0
_UNSTORABLE = (TypeError, ValueError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
"""The exceptions raised by writing a result that JSON or PostgreSQL cannot represent."""
DEAF_SECONDS = 15.0
"""A worker that has not reached the queue for this many seconds is unhealthy."""


@dataclass
class Attempt:
    job: Claimed
    progress: float = 0.0
    message: str = ""
    runner: asyncio.Task[None] | None = None

    def report(self, progress: float, message: str) -> None:
        """Store the progress that a handler reports. May be called from any thread."""
        self.progress, self.message = progress, message

    @property
    def held(self) -> Held:
        return Held(self.job.id, self.job.attempt, self.progress, self.message)


class Worker:
    """Runs jobs of `tasks`, at most `concurrency` at a time.

    `context` is entered on the handlers' own event loop, and opens the connections that they use.
    """

    def __init__(
        self,
        *,
        database: Database,
        tasks: Mapping[str, Task[..., Any]],
        concurrency: int,
        context: AbstractAsyncContextManager[Any],
    ) -> None:
        self.tasks = tasks
        self.owner = uuid.uuid4()
        self.attempts: dict[uuid.UUID, Attempt] = {}
        self.succeeded = 0
        self.failed = 0
        self._database = database
        self._concurrency = concurrency
        self._handlers = HandlerThread(context, threads=concurrency)
        self._reached_at = time.monotonic()
        self._free = asyncio.Event()
        self._free.set()
        self._stopping = asyncio.Event()

    @property
    def healthy(self) -> bool:
        return time.monotonic() - self._reached_at < DEAF_SECONDS

    async def run(self) -> None:
        """Run until `drain` has finished, then return unfinished jobs to the queue."""
        await self._handlers.start()
        loops = [
            BackgroundLoop("claim", self._repeated(POLL_SECONDS, self._claim), fatal=True),
            BackgroundLoop("renew", self._repeated(RENEW_SECONDS, self._renew), fatal=True),
            BackgroundLoop("rescue", self._repeated(RESCUE_SECONDS, self._rescue), fatal=True),
            BackgroundLoop("prune", self._repeated(PRUNE_SECONDS, self._prune), fatal=True),
        ]
        for loop in loops:
            loop.start()
        ends = [asyncio.create_task(end) for end in (self._stopping.wait(), *(loop.ended() for loop in loops))]
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in done:
                end.result()
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, *(loop.stop() for loop in loops), return_exceptions=True)
        await self._give_back()
        await self._handlers.stop()

    async def drain(self, seconds: float) -> None:
        """Claim no more jobs, wait at most `seconds` for the running ones, then stop."""
        self._concurrency = 0
        self._free.clear()
        runners = [attempt.runner for attempt in self.attempts.values() if attempt.runner]
        if runners:
            log.info("waiting for %d running jobs", len(runners))
            await asyncio.wait(runners, timeout=seconds)
        self._stopping.set()

    def _repeated(self, seconds: float, duty: Callable[[], Awaitable[bool]]) -> Callable[[], Awaitable[float]]:
        """Return `duty` for a loop: due again after `seconds`, or at once while it returns True, as there is more.

        It waits for a PostgreSQL that is unavailable.
        """
        away = False

        async def task() -> float:
            nonlocal away
            try:
                more = await duty()
            except DatabaseUnavailable as error:
                if not away:
                    log.warning("%s", error)
                away = True
                return seconds
            if away:
                log.info("PostgreSQL is back")
            away = False
            return 0.0 if more else seconds

        return task

    async def _claim(self) -> bool:
        await self._free.wait()
        room = self._concurrency - len(self.attempts)
        async with self._database.connection() as connection:
            claimed = await queue.claim(connection, self.owner, list(self.tasks), room)
        self._reached_at = time.monotonic()
        for job in claimed:
            attempt = self.attempts[job.id] = Attempt(job)
            attempt.runner = asyncio.create_task(self._attempt(attempt), name=f"job {job.id}")
            attempt.runner.add_done_callback(partial(self._forget, job.id))
        if len(self.attempts) >= self._concurrency:
            self._free.clear()
        return len(claimed) == room

    def _forget(self, job: uuid.UUID, runner: asyncio.Task[None]) -> None:
        self.attempts.pop(job, None)
        if len(self.attempts) < self._concurrency:
            self._free.set()

    async def _attempt(self, attempt: Attempt) -> None:
        job = attempt.job
        task = self.tasks[job.task]
        try:
            arguments = task.arguments_of(**job.arguments)
            returned = await self._handlers.call(task, arguments, attempt.report)
            output = returned if isinstance(returned, Output) else Output(returned)
        except TaskArguments as error:
            await self._settle(attempt, "fail", str(error))
        except AttemptTimedOut as error:
            await self._settle(attempt, "retry", str(error))
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is None or current.cancelling():
                raise  # cancelled by this worker: the lease is lost, or the worker stops
            await self._settle(attempt, "retry", "the handler was cancelled by its own code")
        except Exception as error:
            log.warning("%s %s, attempt %d: %s", job.task, job.id, job.attempt, _last_line(error))
            await self._settle(attempt, "retry", _words(error))
        else:
            await self._settle(attempt, "succeed", output)

    async def _settle(self, attempt: Attempt, outcome: str, what: Any) -> None:
        """Write an outcome; retry until PostgreSQL answers. If the lease was lost, nothing is written."""
        job = attempt.job
        while True:
            try:
                async with self._database.connection() as connection:
                    ours = await self._write(connection, attempt, outcome, what)
            except DatabaseUnavailable:
                # The call has waited PATIENCE already. If the lease expires meanwhile, the write will be refused.
                continue
            break
        if not ours:
            log.warning("%s %s: attempt %d lost its lease, so its outcome was discarded", job.task, job.id, job.attempt)
        elif outcome == "succeed":
            self.succeeded += 1
        else:
            self.failed += 1

    async def _write(self, connection: Any, attempt: Attempt, outcome: str, what: Any) -> bool:
        job = attempt.job
        if outcome == "succeed":
            try:
                return await queue.succeed(connection, self.owner, job.id, job.attempt, what, attempt.message)
            except _UNSTORABLE as error:
                outcome, what = "fail", f"the result cannot be stored: {error}"
        if outcome == "retry" and await queue.retry(connection, self.owner, job.id, job.attempt, what):
            return True
        return await queue.fail(connection, self.owner, job.id, job.attempt, what)

    async def _renew(self) -> bool:
        held = [attempt.held for attempt in self.attempts.values()]
        if held:
            async with self._database.connection() as connection:
                ours = await queue.renew(connection, self.owner, held)
            self._reached_at = time.monotonic()  # a worker at full concurrency does not poll for claims
            for lost in {job.id for job in held} - ours:
                attempt = self.attempts.get(lost)
                if attempt and attempt.runner:
                    log.warning("job %s: lease lost, attempt cancelled", lost)
                    attempt.runner.cancel()
        return False

    async def _rescue(self) -> bool:
        async with self._database.connection() as connection:
            again, poison = await queue.rescue(connection)
        self._reached_at = time.monotonic()
        for job in again:
            log.warning("job %s: its worker ended; the job is back in the queue", job)
        for job in poison:
            log.error("job %s: every worker that ran it ended; the job is recorded as failed", job)
        return False

    async def _prune(self) -> bool:
        async with self._database.connection() as connection:
            await queue.prune(connection)
        return False

    async def _give_back(self) -> None:
        left = [attempt for attempt in self.attempts.values() if attempt.runner]
        for attempt in left:
            assert attempt.runner is not None
            attempt.runner.cancel()
        if left:
            async with self._database.connection() as connection:
                given = await queue.release(connection, self.owner, [attempt.job.id for attempt in left])
            log.warning("%d unfinished jobs returned to the queue", given)


def _last_line(error: BaseException) -> str:
    words = traceback.format_exception_only(error)[-1].strip()
    return words.encode("utf-8", "replace").decode()  # a file name may contain surrogates


def _words(error: BaseException) -> str:
    """Describe an exception for the job's record: its type, its message, and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (line {frames[-1].lineno} of {frames[-1].filename.rpartition('/')[2]})" if frames else ""
    return _last_line(error) + place
