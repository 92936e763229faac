"""Replaces replicas that are too large, too old or unreachable.

A new replica is ready before the old one is removed.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from escala.background import BackgroundLoop
from escala.config import ServiceSettings, UnixSocket
from escala.errors import ServiceBusy
from escala.events import Emit, Recycling
from escala.gateway.haproxy.membership import Membership
from escala.supervisor.replicas.locks import ServiceLocks
from escala.supervisor.replicas.replica import Replica
from escala.supervisor.replicas.table import ReplicaTable
from escala.units import format_duration, format_size

CHECK_SECONDS = 2.0
PAUSE_SECONDS = 10.0
"""Seconds between two replacements in one service. It prevents churn if every replica exceeds a limit."""


class Recycler:
    """`replace` begins to replace replicas of one service by identical new ones."""

    def __init__(
        self,
        replicas: ReplicaTable,
        membership: Membership,
        locks: ServiceLocks,
        replace: Callable[[Sequence[Replica]], None],
        emit: Emit,
    ) -> None:
        self._replicas = replicas
        self._membership = membership
        self._locks = locks
        self._begin = replace
        self._emit = emit
        self._served: dict[tuple[str, int], tuple[int, int]] = {}
        """By name and process: the gateway's count when the process was first seen, and the requests since then."""
        self._not_before: dict[str, float] = {}
        """By service: the earliest time at which the next replica may be replaced."""
        self.loop = BackgroundLoop("recycler", self._check)

    async def _check(self) -> float:
        services = self._replicas.services
        if any(each.max_requests for each in services.values()):
            await self._count_requests()
        for name, service in services.items():
            if self._locks.holder(name) is None and time.monotonic() >= self._not_before.get(name, 0.0):
                self._replace(name, self._lost(name) or await self._spent(name, service))
        return CHECK_SECONDS

    def _replace(self, name: str, chosen: Sequence[tuple[Replica, str]]) -> None:
        chosen = [(replica, why) for replica, why in chosen if not replica.leaving]
        if not chosen:
            return
        try:
            self._begin([replica for replica, _ in chosen])
        except ServiceBusy:  # locked since the check above; the next check tries again
            return
        self._not_before[name] = time.monotonic() + PAUSE_SECONDS
        for replica, why in chosen:
            self._emit(Recycling(replica.name, why))

    def _serving(self, name: str) -> list[Replica]:
        """Return the serving replicas, those that have served longest first."""
        serving = [replica for replica in self._replicas.staying(name) if replica.child.state == "serving"]
        return sorted(serving, key=lambda replica: replica.child.ready_at or math.inf)

    def _lost(self, name: str) -> list[tuple[Replica, str]]:
        """Return the replicas whose socket was deleted. They still run, but nothing can connect to them."""
        return [
            (replica, "its socket was deleted")
            for replica in self._serving(name)
            if isinstance(replica.endpoint, UnixSocket) and not Path(replica.endpoint.path).is_socket()
        ]

    async def _spent(self, name: str, service: ServiceSettings) -> list[tuple[Replica, str]]:
        """Return the replica to replace, and why. Return an empty list if there is none.

        Of the replicas above a limit, it is the one that has served longest, so that none is skipped for ever.
        """
        for replica in self._serving(name):
            why = await self._why_spent(replica, service)
            if why:
                return [(replica, why)]
        return []

    async def _why_spent(self, replica: Replica, service: ServiceSettings) -> str:
        pid, since = replica.child.pid, replica.child.ready_at
        if pid is None or since is None:
            return ""
        if service.max_age is not None and time.time() - since > service.max_age:
            return f"it has served for {format_duration(time.time() - since)}"
        if service.max_memory is not None:
            used = await asyncio.to_thread(_memory, pid)  # it reads all of /proc
            if used > service.max_memory:
                return f"it uses {format_size(used)} of memory"
        served = self._served.get((replica.name, pid), (0, 0))[1]
        if service.max_requests is not None and served >= service.max_requests:
            return f"it has handled {served} requests"
        return ""

    async def _count_requests(self) -> None:
        counted = {(each.service, each.server): each.requests for each in await self._membership.traffic()}
        found: dict[tuple[str, int], tuple[int, int]] = {}
        for replica in self._replicas.all():
            now = counted.get((replica.service, str(replica.number)))
            if now is not None and replica.child.pid is not None:
                key = (replica.name, replica.child.pid)
                first = min(now, self._served.get(key, (now, 0))[0])
                found[key] = (first, now - first)
        self._served = found


def _memory(pid: int) -> int:
    """Return the resident memory of a process and its descendants in bytes. Blocking."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return sum(int(member.memory_info().rss) for member in (process, *process.children(recursive=True)))
    return 0
