"""Replicas that are too large, too old or out of reach are replaced, one after another, by one that is ready first."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import psutil

from escala.background import Loop
from escala.config import ServiceSettings, UnixSocket
from escala.events import Emit, Recycling
from escala.gateway.haproxy.membership import Balancer
from escala.supervisor.changes.rollout_registry import Rollouts
from escala.supervisor.replicas.table import Replica, Replicas
from escala.units import format_duration, format_size

LOOK_EVERY = 2.0
PAUSE = 10.0
"""Seconds between two replacements in one service: what every replica breaks must not turn into a wheel."""


class Recycler:
    def __init__(self, replicas: Replicas, balancer: Balancer, rollouts: Rollouts, emit: Emit) -> None:
        self._replicas = replicas
        self._balancer = balancer
        self._rollouts = rollouts
        self._emit = emit
        self._served: dict[tuple[str, int], tuple[int, int]] = {}
        """By name and process: what the gateway counted last, and all requests of the process."""
        self._not_before: dict[str, float] = {}
        """By service: when the next replica may be replaced."""
        self.loop = Loop("recycler", self._look)

    async def _look(self) -> float:
        services = self._replicas.services
        if any(each.max_requests for each in services.values()):
            await self._count_requests()
        for name, service in services.items():
            if not self._rollouts.running(name) and time.monotonic() >= self._not_before.get(name, 0.0):
                self._replace(name, self._lost(name) or list(islice(self._spent(name, service), 1)))
        return LOOK_EVERY

    def _replace(self, name: str, chosen: Sequence[tuple[Replica, str]]) -> None:
        if chosen:
            self._not_before[name] = time.monotonic() + PAUSE
            for replica, why in chosen:
                self._emit(Recycling(replica.name, why))
            self._rollouts.recycle([replica for replica, _ in chosen])

    def _serving(self, name: str) -> list[Replica]:
        """Return the replicas that serve, the longest serving first."""
        serving = [replica for replica in self._replicas.staying(name) if replica.child.state == "serving"]
        return sorted(serving, key=lambda replica: replica.child.ready_at or math.inf)

    def _lost(self, name: str) -> list[tuple[Replica, str]]:
        """Return whose socket somebody has deleted: they live, and nobody reaches them."""
        return [
            (replica, "its socket is gone")
            for replica in self._serving(name)
            if isinstance(replica.endpoint, UnixSocket) and not Path(replica.endpoint.path).is_socket()
        ]

    def _spent(self, name: str, service: ServiceSettings) -> Iterator[tuple[Replica, str]]:
        """Yield who has to go and why, the longest serving first: a limit that all break soon must pass nobody over."""
        for replica in self._serving(name):
            pid, since = replica.child.pid, replica.child.ready_at
            if pid is None or since is None:
                continue
            if service.max_age is not None and time.time() - since > service.max_age:
                yield replica, f"it has served for {format_duration(time.time() - since)}"
            elif service.max_memory is not None and (used := _memory(pid)) > service.max_memory:
                yield replica, f"it uses {format_size(used)} of memory"
            elif service.max_requests is not None:
                served = self._served.get((replica.name, pid), (0, 0))[1]
                if served >= service.max_requests:
                    yield replica, f"it has served {served} requests"

    async def _count_requests(self) -> None:
        """Add up each process's requests; the gateway counts from zero after a reload."""
        counted = {(each.service, each.server): each.requests for each in await self._balancer.traffic()}
        found: dict[tuple[str, int], tuple[int, int]] = {}
        for name in self._replicas.services:
            for replica in self._replicas.staying(name):
                now = counted.get((name, str(replica.number)))
                if now is None or replica.child.pid is None:
                    continue
                key = (replica.name, replica.child.pid)
                last, total = self._served.get(key, (now, 0))
                found[key] = (now, total + (now - last if now >= last else now))
        self._served = found


def _memory(pid: int) -> int:
    """Return the resident bytes of a process and what it started; cheap enough to ask often."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return sum(int(member.memory_info().rss) for member in (process, *process.children(recursive=True)))
    return 0
