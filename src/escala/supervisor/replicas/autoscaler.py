"""The autoscaler: measures the load of services, and adjusts their number of replicas (`scaling_policy`)."""

import time
from collections import deque
from collections.abc import Mapping

from escala.background import BackgroundLoop
from escala.config import ServiceSettings
from escala.errors import ServiceBusy
from escala.events import Emit, Rescaled
from escala.gateway.haproxy.membership import Membership
from escala.gateway.haproxy.traffic import Traffic
from escala.supervisor.replicas.backlog import Backlog
from escala.supervisor.replicas.locks import ServiceLocks
from escala.supervisor.replicas.scaling_policy import Capacity, Decision, Sample, decide
from escala.supervisor.replicas.table import ReplicaTable

SAMPLE_SECONDS = 0.5
"""Seconds between two samples."""
_ASLEEP_SECONDS = 0.2
"""The same while a service has no replica, as a request may be waiting for one."""


class Autoscaler:
    def __init__(
        self, replicas: ReplicaTable, membership: Membership, locks: ServiceLocks, backlog: Backlog, emit: Emit
    ) -> None:
        self._replicas = replicas
        self._membership = membership
        self._locks = locks
        self._backlog = backlog
        self._emit = emit
        self._histories: dict[str, deque[Sample]] = {}
        self._requests: dict[str, int] = {}
        self._decisions: dict[str, Decision] = {}
        self._changing: set[str] = set()
        """Workers that were locked, for example by a rollout. Their new version may have other tasks."""
        self.loop = BackgroundLoop("autoscaler", self._follow)

    def begin_anew(self, service: str) -> None:
        """Forget the samples. Somebody has chosen a number of replicas, and it must not shrink at once."""
        self._histories.pop(service, None)

    def why(self, service: str) -> str:
        """Return why a service has its current number of replicas; "" if the number is fixed."""
        decision = self._decisions.get(service)
        return decision.why if decision else ""

    async def _follow(self) -> float:
        scaled = {name: each for name, each in self._replicas.services.items() if each.replicas.scales}
        for kept in (self._histories, self._requests, self._decisions):
            for name in kept.keys() - scaled.keys():
                del kept[name]
        if scaled:
            await self._measure(scaled)
        asleep = any(not self._replicas.staying(name) for name in scaled)
        return _ASLEEP_SECONDS if asleep else SAMPLE_SECONDS

    async def _measure(self, scaled: Mapping[str, ServiceSettings]) -> None:
        traffic = {each.service: each for each in await self._membership.traffic() if not each.server}
        for name, service in scaled.items():
            sample = await self._sample(name, service, traffic.get(name))
            if sample is not None:  # the load could be measured
                self._decide(name, service, sample)

    def _decide(self, name: str, service: ServiceSettings, sample: Sample) -> None:
        rules = service.replicas
        history = self._histories.setdefault(name, deque())
        history.append(sample)
        while len(history) > 1 and history[1].at <= sample.at - rules.down_after:
            history.popleft()
        present = len(self._replicas.staying(name))
        decision = self._decisions[name] = decide(history, present, rules, _capacity(service))
        if decision.count == present:
            return
        try:
            with self._locks.hold([name], "autoscaling"):
                self._replicas.scale(name, decision.count)
        except ServiceBusy:  # for example by a rollout; the next sample decides again
            return
        self._emit(Rescaled(name, present, decision.count, decision.why))

    async def _sample(self, name: str, service: ServiceSettings, traffic: Traffic | None) -> Sample | None:
        ready = sum(replica.serves for replica in self._replicas.staying(name))
        now = time.monotonic()
        if service.kind == "tasks":
            if self._locks.holder(name):
                self._changing.add(name)
            elif name in self._changing:
                self._changing.discard(name)
                self._backlog.forget(service.target)
            counts = await self._backlog.of(service.target, list(service.queues), lambda: self._replicas.spec_of(name))
            if counts is None:
                return None
            active = counts.running + counts.waiting > 0
            return Sample(now, counts.running, counts.waiting, active, counts.oldest_seconds, ready)
        if traffic is None:
            return None
        before = self._requests.get(name, traffic.requests)
        self._requests[name] = traffic.requests
        # The gateway counts waiting requests as in flight too.
        busy = max(0, traffic.inflight - traffic.queued)
        return Sample(now, busy, traffic.queued, traffic.requests != before, 0.0, ready)


def _capacity(service: ServiceSettings) -> Capacity:
    if service.kind == "tasks":
        return Capacity(service.concurrency, service.replicas.target_waiting)
    return Capacity(service.replicas.target_inflight)
