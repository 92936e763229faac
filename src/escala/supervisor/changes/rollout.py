"""A rollout: the replicas of one service are replaced by new ones, and no request is dropped.

New replicas come first. Only when they are ready and known to HAProxy, the same number of old ones finish their
requests and end. If a new replica does not become ready, the rollout stops: the new replicas are removed, and those
that were already replaced are started again as they were. The remaining old replicas serve all the time.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from escala.control.messages import Canary
from escala.errors import RolloutStopped
from escala.events import CanaryJudged, Emit, RolloutEnded, RolloutFailed, RolloutStarted
from escala.gateway.topology.servers import FULL_WEIGHT
from escala.project.project import Project
from escala.supervisor.changes.canary import judge, weight_for
from escala.supervisor.changes.canary_watch import CanaryWatch
from escala.supervisor.replicas.replica import Replica
from escala.supervisor.replicas.table import ReplicaTable

_POLL_SECONDS = 0.1
_PATIENCE = 60.0
"""Seconds that a rollout waits for replicas that went down while it ran."""


class Rollout:
    """Replaces the replicas of a service by ones that run `release`. `progress` is called after each step."""

    def __init__(
        self,
        replicas: ReplicaTable,
        service: str,
        release: Project,
        *,
        canary: Canary | None,
        watch: CanaryWatch,
        emit: Emit,
        only: Sequence[Replica],
        progress: Callable[[], None],
    ) -> None:
        self.service = service
        self.replaced = 0
        self._replicas = replicas
        self._release = release
        self._before = replicas.release_of(service)
        self._canary = canary
        self._watch = watch
        self._emit = emit
        self._progress = progress
        self._limits = release.topology.services[service].rollout
        self._old = list(only) or replicas.staying(service)
        self._whole = not only
        self._numbers = sorted(replica.number for replica in self._old)
        self._fresh: list[Replica] = []
        self.wanted = len(self._old)
        """How many replicas are to be replaced."""

    async def run(self) -> None:
        """Replace all of them; raise RolloutStopped if the rollout failed and was reverted."""
        began = time.monotonic()
        self._emit(RolloutStarted(self.service, self.wanted))
        try:
            if self._canary is not None and self._old:
                await self._try(self._canary)
            while self._old or len(self._fresh) < self.wanted:
                await self._until_some_may_change()
                await self._start(self._room())
                await self._retire(self._spare())
            await self._take_pinned_numbers()
        except RolloutStopped as error:
            words = f"{error}; {await self._go_back()}"
            self._emit(RolloutFailed(self.service, words))
            raise RolloutStopped(words) from None
        if self._whole:
            self._replicas.adopt(self.service, self._release)
        self._emit(RolloutEnded(self.service, self.replaced, time.monotonic() - began))

    def _room(self) -> int:
        """Return how many new replicas may be started now."""
        alive = len(self._old) + len(self._fresh)
        return min(self.wanted + self._limits.max_surge - alive, self.wanted - len(self._fresh))

    def _spare(self) -> int:
        """Return how many old replicas may be removed now."""
        serving = [replica for replica in (*self._old, *self._fresh) if replica.serves]
        spared = max(0, len(serving) - (self.wanted - self._limits.max_unavailable))
        return min(len(self._old), spared + sum(replica not in serving for replica in self._old))

    async def _start(self, count: int, weight: int = FULL_WEIGHT) -> None:
        """Start new replicas, wait until they serve, and check that they stay up for the settle time."""
        started = [self._replicas.add(self.service, self._release) for _ in range(count)]
        for replica in started:
            replica.weight = weight
        await self._until_serving(started)
        end = time.monotonic() + (self._limits.settle if started else 0)
        while time.monotonic() < end:
            await asyncio.sleep(min(_POLL_SECONDS, self._limits.settle))
            for replica in started:
                if replica.child.state not in {"serving", "draining"}:
                    raise RolloutStopped(f"{replica.name} became ready, but then ended: {replica.why_not()}")

    async def _until_serving(self, started: Sequence[Replica]) -> None:
        self._fresh += started
        await asyncio.gather(*(replica.child.wait_tried() for replica in started))
        for replica in started:
            if not replica.serves:
                raise RolloutStopped(f"{replica.name} did not become ready: {replica.why_not()}")

    async def _until_some_may_change(self) -> None:
        """Wait until a replica may be started or removed.

        If too many replicas are down for another reason, neither is possible.
        """
        end = time.monotonic() + _PATIENCE
        while self._room() <= 0 and self._spare() <= 0:
            if time.monotonic() > end:
                down = [each for each in (*self._old, *self._fresh) if not each.serves]
                raise RolloutStopped("; ".join(f"{replica.name}: {replica.why_not()}" for replica in down))
            await asyncio.sleep(_POLL_SECONDS)

    async def _retire(self, count: int) -> None:
        by_use = sorted(self._old, key=lambda replica: replica.serves)  # those that do not serve go first
        going, self._old = by_use[:count], by_use[count:]
        await asyncio.gather(*(self._replicas.retire(replica) for replica in going))
        self.replaced += len(going)
        self._progress()

    async def _try(self, canary: Canary) -> None:
        """Give one new replica a share of the requests for a while, and judge it."""
        if not self._limits.max_surge:
            await self._retire(1)
        await self._start(1, weight_for(canary.share, 1, len(self._old)))
        fresh, old = await self._watch.observe(self._fresh[0], self._old, canary.seconds)
        if not self._fresh[0].serves:
            raise RolloutStopped(f"the canary died: {self._fresh[0].why_not()}")
        verdict = judge(fresh, old)
        self._emit(CanaryJudged(self.service, verdict.good, verdict.why))
        if not verdict.good:
            raise RolloutStopped(f"the canary did worse than the old replicas: {verdict.why}")
        await self._replicas.weigh(self._fresh[0], FULL_WEIGHT)
        await self._retire(self._spare())

    async def _take_pinned_numbers(self) -> None:
        """Move replicas onto pinned ports that are free now.

        While old replicas still held these ports, the new ones got numbers beyond them.
        """
        pinned = len(self._release.topology.services[self.service].ports)
        for number in self._numbers:
            if number <= pinned and self._replicas.is_free(self.service, number):
                beyond = max(self._fresh, key=lambda replica: replica.number)
                await self._until_serving([self._replicas.add(self.service, self._release, number)])
                self._fresh.remove(beyond)
                await self._replicas.retire(beyond)

    async def _go_back(self) -> str:
        """Restore the old replicas as far as possible. Return a text that says what serves now."""
        if self._release is self._before:  # the code files were changed in place, so the old code no longer exists
            serving = [replica for replica in self._fresh if replica.serves]
            keep = serving[: self.wanted - len(self._old)]
        else:
            back = [self._replicas.add(self.service, self._before) for _ in range(self.wanted - len(self._old))]
            for replica in back:
                await replica.child.wait_tried()
            failed = [replica for replica in back if not replica.serves]
            keep = [replica for replica in self._fresh if replica.serves][: len(failed)]
            self._old += back
        for replica in keep:
            await self._replicas.weigh(replica, FULL_WEIGHT)
        await asyncio.gather(*(self._replicas.retire(replica) for replica in self._fresh if replica not in keep))
        return _who_serves(sum(replica.serves for replica in self._old), len(keep), len(self._old))


def _who_serves(old: int, new: int, all_old: int) -> str:
    """Describe what serves after a rollout was reverted: how many of the old replicas, and how many of the new ones."""
    if not old + new:
        return "no replica serves: requests get 503 until one starts"
    if new:
        return f"{old} old and {new} new replica{' serves' if old + new == 1 else 's serve'}"
    if old < all_old:
        return f"{old} of {all_old} old replicas continue{'s' if old == 1 else ''} to serve"
    return f"{old} old replica{' continues' if old == 1 else 's continue'} to serve"
