"""The health of serving replicas: each is probed every second, and judged together with the gateway's counters.

A replica under load must not be taken for a dead one. A replica is silent if it does not answer the probe. If it still
answers requests, or already has as many as it may have, it is busy. It then stays in service, and further requests
wait in the gateway's queue. If it is silent although it has capacity left, it hangs. It then gets no new requests, and
is replaced if that lasts (`hang_timeout`). HAProxy itself only checks that it can connect.
"""

import asyncio
import time
from dataclasses import dataclass

from escala.background import BackgroundLoop
from escala.events import Emit, HealthChanged
from escala.gateway.haproxy.membership import Membership
from escala.gateway.haproxy.traffic import Traffic
from escala.supervisor.replicas.probe import Answer, ask
from escala.supervisor.replicas.replica import HealthState, Replica
from escala.supervisor.replicas.table import ReplicaTable

CHECK_SECONDS = 1.0
FALL = 2
"""How many bad answers in a row take a replica out of service. One good answer puts it back."""


@dataclass(frozen=True)
class Health:
    """What is known about the health of one process."""

    state: HealthState = "healthy"
    bad: int = 0
    """Bad or missing answers in a row."""
    silent_since: float | None = None
    """Since when neither the probe nor any request has been answered."""
    answers: int | None = None
    """How many requests it had answered when it was last found silent."""


def judge(before: Health, answer: Answer, traffic: Traffic | None, now: float, *, patient: bool = False) -> Health:
    """Return the health after one more probe. A pure function. `traffic` is needed only if the replica was silent.

    `patient` is for third-party servers. All their threads may be busy for a long time, so silence means nothing
    while they have requests.
    """
    if answer == "healthy":
        return Health()
    bad = before.bad + 1
    if answer == "unhealthy":
        return Health("unhealthy" if bad >= FALL else before.state, bad)
    if traffic is None:  # its load is unknown
        return before
    answers = traffic.answers
    works = before.answers is not None and answers != before.answers
    if works or traffic.full or (patient and traffic.inflight):
        since = now if works or before.silent_since is None else before.silent_since
        return Health("busy", bad, since, answers)
    since = now if before.silent_since is None else before.silent_since
    return Health("hung" if bad >= FALL else before.state, bad, since, answers)


class HealthWatch:
    def __init__(self, replicas: ReplicaTable, membership: Membership, emit: Emit) -> None:
        self._replicas = replicas
        self._membership = membership
        self._emit = emit
        self._known: dict[tuple[str, int], Health] = {}
        """The key is the replica's name and the process id."""
        self.loop = BackgroundLoop("health watch", self._check)

    async def _check(self) -> float:
        began = time.monotonic()
        asked = [replica for replica in self._replicas.all() if replica.child.state in ("serving", "draining")]
        answers = await asyncio.gather(*(ask(each.endpoint, each.settings.page, each.name) for each in asked))
        traffic: dict[tuple[str, str], Traffic] = {}
        if "silent" in answers:
            traffic = {(each.service, each.server): each for each in await self._membership.traffic()}
        known: dict[tuple[str, int], Health] = {}
        changes: list[tuple[Replica, HealthState]] = []
        for replica, answer in zip(asked, answers, strict=True):
            if replica.child.pid is None:  # it has ended in the meantime
                continue
            key = (replica.name, replica.child.pid)
            before = self._known.get(key, Health())
            counted = traffic.get((replica.service, str(replica.number)))
            patient = replica.hangs_after is None
            known[key] = found = judge(before, answer, counted, time.monotonic(), patient=patient)
            if found.state != replica.health:
                changes.append((replica, found.state))
            self._end_if_hung(replica, found)
        self._known = known
        for replica, state in changes:
            await self._change(replica, state)
        return max(0.0, CHECK_SECONDS - (time.monotonic() - began))

    async def _change(self, replica: Replica, state: HealthState) -> None:
        before, replica.health = replica.health, state
        self._emit(HealthChanged(replica.name, before, state))
        if not replica.leaving:
            await self._membership.update(replica.service, replica.server)

    def _end_if_hung(self, replica: Replica, found: Health) -> None:
        limit = replica.hangs_after
        if limit is None or found.silent_since is None or replica.leaving:
            return
        silent = time.monotonic() - found.silent_since
        if silent > limit:
            replica.child.abort(f"it hung: it answered nothing for {silent:.0f} s")
