"""A worker: claims jobs, begins them, watches their time, and gives back what it cannot finish.

Each duty has a loop of its own, which outlives failures of PostgreSQL. A bug in one ends the worker, after it has given
its jobs back; the supervisor then starts a new one.
"""

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from escala.background import BackgroundLoop
from escala.errors import WorkerWornOut
from escala.tasks.listing import listed
from escala.tasks.store.attempts import Claimed
from escala.tasks.task import Task
from escala.tasks.worker.attempt import Attempt, Outcome, Reason, interrupted, unknown
from escala.tasks.worker.claiming import Claimer
from escala.tasks.worker.handlers.local import Handlers
from escala.tasks.worker.handlers.process_pool import HandlerPool, processors
from escala.tasks.worker.lease import RENEW_SECONDS, Lease
from escala.tasks.worker.link import FAILURES, Link
from escala.tasks.worker.listening import Listener
from escala.tasks.worker.rate import Rate
from escala.tasks.worker.settling import Settler
from escala.tasks.worker.ticking import Ticker
from escala.tasks.worker.upkeep import Upkeep

log = logging.getLogger("escala.worker")

DEAF_SECONDS = 15.0
"""A worker that has not reached the queue for this many seconds is unhealthy."""
WATCH_SECONDS = 0.1
GRACE_SECONDS = 5.0
"""How long an async handler may take to end after it was cancelled."""
_PREFETCH_SECONDS = 0.1
"""So much work is claimed ahead. It is little: what is claimed ahead is not begun by another worker."""
_MOST_PREFETCHED = 1000
_IDLE_SECONDS = 10.0
_FAREWELL_SECONDS = 2.0
"""How long a stopping worker tries to give its jobs back. If it cannot, they are rescued when its lease ends."""
EARLIER_QUEUE = "default"
"""Where Escala 0.1 put all jobs, under the short names of their tasks."""


class Worker:
    """Runs jobs of `tasks`, at most `concurrency` at a time.

    `context` is entered on the handlers' own event loop, and opens the connections that they use. `module`, in the
    folder `root`, is what processes load that run one job at a time. `queues` gives the queues to serve with their
    weights; by default those of the tasks, all alike. `node` names a start of the supervisor, `replica` this replica.
    """

    def __init__(
        self,
        *,
        url: str,
        tasks: Mapping[str, Task[..., Any]],
        module: str,
        root: str = "",
        concurrency: int,
        queues: Mapping[str, float] | None = None,
        context: AbstractAsyncContextManager[Any],
        node: str = "",
        replica: str = "",
    ) -> None:
        self.tasks = tasks
        self.running: dict[uuid.UUID, Attempt] = {}
        self.abandoned: set[Attempt] = set()
        """Attempts with an outcome whose handlers go on: a thread cannot be stopped. Each keeps its place."""
        self._short_names = _by_short_name(tasks)
        self._ready: deque[Attempt] = deque()
        """Claimed, and not begun."""
        self._concurrency = concurrency
        self._rate = Rate()
        weights = dict(queues or dict.fromkeys(sorted({task.queue for task in tasks.values()}), 1.0))
        weights.setdefault(EARLIER_QUEUE, min(weights.values()))
        name = replica or "worker"
        self._links = [Link(url, f"{name} {duty}") for duty in ("claims", "outcomes", "lease", "upkeep", "listens")]
        claims, outcomes, lease, upkeep, listens = self._links
        self._lease = Lease(lease, node=node, replica=replica, queues=list(weights), tasks=listed(tasks))
        self._claimer = Claimer(claims, weights, self, self._rate_of)
        self._settler = Settler(outcomes)
        self._upkeep = Upkeep(upkeep)
        self._ticker = Ticker(upkeep, tasks.values())
        self._handlers = Handlers(context, self._done)
        self._pool = HandlerPool(module, root, processors(), self._done)
        self._alone: set[Attempt] = set()
        """Attempts that run in processes of their own."""
        self._listener = Listener(
            listens,
            {
                "escala_jobs": lambda queue: self._claimer.wake() if queue in weights or not queue else None,
                "escala_scheduled": lambda _: self._upkeep.wake(),
                "escala_cancelled": self._look_at,
            },
        )
        self._busy = asyncio.Event()
        """Set while attempts run."""
        self._any_ended = asyncio.Event()
        self._stopping = asyncio.Event()
        self._worn_out = ""

    @property
    def succeeded(self) -> int:
        return self._settler.succeeded

    @property
    def failed(self) -> int:
        return self._settler.failed

    @property
    def healthy(self) -> bool:
        """Whether it reached the queue lately. One whose places are all taken claims nothing, but renews its lease."""
        return time.monotonic() - max(self._claimer.reached_at, self._lease.renewed_at) < DEAF_SECONDS

    def task_named(self, name: str) -> Task[..., Any] | None:
        """Return a task by its name, or by the last part of it, where only one ends so."""
        return self.tasks.get(name) or self._short_names.get(name)

    async def run(self) -> None:
        """Run until `drain` has finished, then give unfinished jobs back.

        Raises TaskClash if another service has another task of the same name. Raises WorkerWornOut if handlers that
        cannot be stopped have taken all places, or the event loop.
        """
        await self._handlers.open()
        settle = BackgroundLoop("outcomes", self._settler.write, fatal=True)
        settle.start()
        loops = [
            self._loop("lease", RENEW_SECONDS, self._renew),
            self._loop("claims", 0.25, self._claimer.claim),
            self._loop("suspects", 1.0, self._claimer.claim_suspects),
            self._loop("schedule", 1.0, self._upkeep.stage),
            self._loop("rescue", 2.0, self._upkeep.rescue),
            self._loop("pruning", 60.0, self._upkeep.prune),
            self._loop("blocked jobs", 1.0, self._upkeep.unblock),
            self._loop("cron", 1.0, self._ticker.tick),
            BackgroundLoop("listener", self._listener.listen, fatal=True),
            BackgroundLoop("watch", self._watch, fatal=True),
            BackgroundLoop("idle processes", self._end_idle, fatal=True),
        ]
        ends: list[asyncio.Task[Any]] = []
        try:
            await self._register()
            for loop in loops:
                loop.start()
            ends = [
                asyncio.create_task(end)
                for end in (self._stopping.wait(), *(loop.ended() for loop in (settle, *loops)))
            ]
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in done:
                end.result()
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, *(loop.stop() for loop in loops), return_exceptions=True)
            await self._say_farewell()
            await settle.stop()
            for link in self._links:
                await link.close()
            await self._pool.close()
            await self._handlers.close()
        if self._worn_out:
            raise WorkerWornOut(self._worn_out)

    async def drain(self, seconds: float) -> None:
        """Claim no more jobs, wait at most `seconds` for the running ones, then stop."""
        end = time.monotonic() + seconds
        await self._claimer.close()
        self._give_back_ready()
        if self.running:
            log.info("waiting for %d running jobs", len(self.running))
        while self.running and time.monotonic() < end:
            self._any_ended.clear()
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + end - time.monotonic()):
                    await self._any_ended.wait()
            except TimeoutError:
                break
        self._stopping.set()

    # What the claimer asks for.

    @property
    def owner(self) -> uuid.UUID:
        return self._lease.owner

    def room(self) -> int:
        """Return how many jobs to claim: for the free places, and for those that will be free in a moment."""
        free = self._concurrency - len(self.running) - len(self.abandoned)
        ahead = min(_MOST_PREFETCHED, int(self._rate.per_second * _PREFETCH_SECONDS))
        if free <= 0 and len(self._ready) > ahead // 2:
            return 0
        return max(0, free + ahead - len(self._ready))

    def take(self, jobs: list[Claimed]) -> None:
        """Take claimed jobs."""
        for job in jobs:
            if (attempt := self._attempt(job)) is not None:
                self._ready.append(attempt)
        self._begin()

    def known(self) -> list[uuid.UUID]:
        """Return the jobs that this worker has: claimed, running, or with an outcome that is not written yet."""
        return [*self.running, *(attempt.job.id for attempt in self._ready), *self._settler.jobs]

    @property
    def room_alone(self) -> int:
        """How many more suspects can run."""
        return min(self._pool.room, self._concurrency - len(self.running) - len(self.abandoned))

    def take_alone(self, jobs: list[Claimed]) -> None:
        """Take jobs that are to run in processes of their own."""
        attempts = [attempt for job in jobs if (attempt := self._attempt(job)) is not None]
        self._begin_alone(attempts)

    def _rate_of(self, task: str) -> tuple[int, float] | None:
        found = self.task_named(task)
        return found.limits.rate if found is not None else None

    # How attempts begin and end.

    def _attempt(self, job: Claimed) -> Attempt | None:
        """Return the attempt to begin for a job; None if its outcome is clear without it."""
        task = self.task_named(job.task)
        if task is None:
            outcome = unknown(job)
            log.warning("%s %s: %s", job.task, job.id, outcome.error)
            self._settler.put(Attempt(job, next(iter(self.tasks.values())), self.owner), outcome)
            return None
        attempt = Attempt(job, task, self.owner)
        if job.expired:
            outcome = Outcome("failed", error="it expired before a worker could begin it")
            log.warning("%s %s: %s", job.task, job.id, outcome.error)
            self._settler.put(attempt, outcome)
            return None
        return attempt

    def _begin(self) -> None:
        """Begin as many of the claimed jobs as there are free places."""
        here: list[Attempt] = []
        alone: list[Attempt] = []
        while self._ready and len(self.running) + len(self.abandoned) < self._concurrency:
            attempt = self._ready.popleft()
            self.running[attempt.job.id] = attempt
            (alone if attempt.task.process else here).append(attempt)
            self._busy.set()
        if here:
            self._handlers.start(here)
        if alone:
            self._begin_alone(alone)

    def _begin_alone(self, attempts: list[Attempt]) -> None:
        for attempt in attempts:
            self.running[attempt.job.id] = attempt
            self._busy.set()
        self._alone.update(attempts)
        self._pool.start(attempts)

    def _done(self, ended: Sequence[tuple[Attempt, Outcome]]) -> None:
        """Take the outcomes of handlers that have ended."""
        self._rate.count(len(ended))
        for attempt, outcome in ended:
            if attempt in self._alone:
                self._alone.discard(attempt)
                self._claimer.wake_alone()
            self.abandoned.discard(attempt)
            if not attempt.settled:
                self._settle(attempt, outcome)
        self._begin()
        self._claimer.wake()

    def _settle(self, attempt: Attempt, outcome: Outcome) -> None:
        attempt.settled = True
        if self.running.get(attempt.job.id) is attempt:
            del self.running[attempt.job.id]
        if outcome.error is not None:
            log.warning("%s: %s", attempt, outcome.error)
        self._settler.put(attempt, outcome)
        self._any_ended.set()

    def _interrupt(self, attempt: Attempt, reason: Reason) -> None:
        """Tell a handler to stop. A thread cannot be made to: its outcome is clear at once, but for a cancelled job."""
        attempt.interrupted, attempt.interrupted_at = reason, time.monotonic()
        if attempt in self._alone:
            self._pool.interrupt(attempt)
            return
        self._handlers.interrupt(attempt)
        if not attempt.task.is_async and reason != "cancelled":
            self._abandon(attempt, interrupted(attempt))

    def _abandon(self, attempt: Attempt, outcome: Outcome) -> None:
        """Record an outcome though the handler goes on."""
        self.abandoned.add(attempt)
        self._settle(attempt, outcome)
        if len(self.abandoned) >= self._concurrency:
            self._wear_out(f"all {self._concurrency} places are held by handlers that did not end in time")

    async def _watch(self) -> float:
        """Interrupt attempts whose time is over, and give up those that do not end."""
        await self._busy.wait()
        now = time.monotonic()
        for attempt in list(self.running.values()):
            if attempt.interrupted is None:
                if attempt.began is not None and now - attempt.began > attempt.task.timeout:
                    self._interrupt(attempt, "timeout")
            elif attempt.interrupted != "cancelled" and now - attempt.interrupted_at > GRACE_SECONDS:
                self._give_up(attempt)
        if not self.running:
            self._busy.clear()
        return WATCH_SECONDS

    def _give_up(self, attempt: Attempt) -> None:
        if attempt in self._alone:
            self._pool.end(attempt)
        elif attempt.interrupt_arrived:
            self._abandon(attempt, interrupted(attempt))  # it does not end although it was cancelled
        else:
            blocker = next((each for each in self.running.values() if self._handlers.is_blocked_by(each)), None)
            if blocker is not None:
                blocker.interrupted = "timeout"
                self._abandon(blocker, interrupted(blocker))
            self._wear_out(f"{blocker or 'a handler'} blocks the event loop, so no other async handler can go on")

    def _wear_out(self, why: str) -> None:
        """End this process: no job can run well in it any more."""
        if not self._worn_out:
            self._worn_out = why
            log.error("this worker ends, and another takes its place: %s", why)
            self._stopping.set()

    # Duties.

    def _loop(self, name: str, pause: float, duty: Callable[[], Awaitable[float]]) -> BackgroundLoop:
        return BackgroundLoop(name, _patient(name, pause, duty), fatal=True)

    async def _register(self) -> None:
        register = _patient("lease", 1.0, self._register_once)
        while pause := await register():  # noqa: ASYNC110 - PostgreSQL gives no sign
            await asyncio.sleep(pause)

    async def _register_once(self) -> float:
        await self._lease.register()
        return 0.0

    async def _renew(self) -> float:
        ours = await self._lease.renew()
        attempts = [*self.running.values(), *self._ready]
        if not ours:
            log.warning("the lease of this worker ended; its %d jobs are given up", len(attempts))
            self._lose(attempts)
            return RENEW_SECONDS
        await self._lease.tell(attempts)
        lost, cancelled = await self._lease.ask(attempts)
        self._lose(lost)
        for attempt in cancelled:
            self._cancel(attempt)
        return RENEW_SECONDS

    def _lose(self, attempts: list[Attempt]) -> None:
        for attempt in attempts:
            if attempt in self._ready:
                self._ready.remove(attempt)
            elif not attempt.settled and attempt.interrupted != "lost":
                self._interrupt(attempt, "lost")

    def _cancel(self, attempt: Attempt) -> None:
        if attempt in self._ready:
            self._ready.remove(attempt)
            attempt.interrupted = "cancelled"
            self._settle(attempt, interrupted(attempt))
        elif attempt.interrupted is None and not attempt.settled:
            self._interrupt(attempt, "cancelled")

    def _look_at(self, job: str) -> None:
        """Look at a running job that was cancelled."""
        attempt = self.running.get(uuid.UUID(job)) if job else None
        if attempt is not None:
            self._cancel(attempt)

    async def _end_idle(self) -> float:
        await self._pool.end_idle()
        return _IDLE_SECONDS

    # The end.

    def _give_back_ready(self) -> None:
        while self._ready:
            self._settle(self._ready.popleft(), Outcome("released"))

    async def _say_farewell(self) -> None:
        """Give back what has not ended, write all outcomes, and end the lease."""
        self._give_back_ready()
        left = list(self.running.values())
        for attempt in left:
            self._interrupt(attempt, "stopping")
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._cancelled_handlers()
        except TimeoutError:
            pass
        for attempt in list(self.running.values()):
            self._settle(attempt, interrupted(attempt))
        if left:
            log.warning("%d unfinished jobs are given back to the queue", len(left))
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._settler.written()
                await self._lease.end()
        except FAILURES as error:
            log.warning("PostgreSQL does not take the last outcomes; these jobs will be rescued: %r", error)

    async def _cancelled_handlers(self) -> None:
        """Wait for async handlers that were cancelled."""
        while any(attempt.task.is_async for attempt in self.running.values()):
            self._any_ended.clear()
            await self._any_ended.wait()


def _patient(name: str, pause: float, duty: Callable[[], Awaitable[float]]) -> Callable[[], Awaitable[float]]:
    """Return a duty that is tried again after `pause` seconds when PostgreSQL fails."""
    fails = False

    async def work() -> float:
        nonlocal fails
        try:
            wait = await duty()
        except FAILURES as error:
            if not fails:
                log.warning("%s: PostgreSQL fails; trying again: %s", name, str(error) or type(error).__name__)
            fails = True
            return pause
        if fails:
            log.info("%s: PostgreSQL is back", name)
        fails = False
        return wait

    return work


def _by_short_name(tasks: Mapping[str, Task[..., Any]]) -> dict[str, Task[..., Any]]:
    """Return the tasks by the last part of their names, where that is clear."""
    found: dict[str, list[Task[..., Any]]] = {}
    for name, task in tasks.items():
        found.setdefault(name.rpartition(".")[2], []).append(task)
    return {short: each[0] for short, each in found.items() if len(each) == 1}
