"""The requests that a running project accepts. Each one becomes an operation, or is refused at once."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from escala.control.messages import (
    AnyRequest,
    Applied,
    Apply,
    Canary,
    Drain,
    OperationStatus,
    Reload,
    Revoke,
    Roll,
    Scale,
)
from escala.errors import (
    CountOutOfRange,
    EscalaError,
    NotReady,
    OperationRefused,
    ReplicaNotReady,
    UnknownReplica,
    UnknownService,
)
from escala.events import Drained, Emit, Reloaded, ReloadFailed, Revoked, Scaled
from escala.gateway.haproxy.configuration import Plan
from escala.gateway.haproxy.membership import Membership
from escala.supervisor.changes.apply import ApplyOperation
from escala.supervisor.changes.operation_registry import Operation, OperationRegistry
from escala.supervisor.changes.rollout_registry import RolloutRegistry
from escala.supervisor.gateway.revocation_sync import RevocationSync, never_later_than
from escala.supervisor.phase import Phase
from escala.supervisor.replicas.autoscaler import Autoscaler
from escala.supervisor.replicas.endpoints import MAX_REPLICAS
from escala.supervisor.replicas.locks import PROJECT, ServiceLocks
from escala.supervisor.replicas.table import ReplicaTable

_POLL_SECONDS = 0.05
_RENEW = "renew"

Work = Callable[[Operation], Coroutine[Any, Any, None]]


class Operations:
    def __init__(
        self,
        *,
        phase: Phase,
        registry: OperationRegistry,
        replicas: ReplicaTable,
        membership: Membership,
        rollouts: RolloutRegistry,
        locks: ServiceLocks,
        autoscaler: Autoscaler,
        revocations: RevocationSync,
        apply: ApplyOperation,
        plan: Callable[[], Plan],
        emit: Emit,
    ) -> None:
        self._phase = phase
        self._registry = registry
        self._replicas = replicas
        self._membership = membership
        self._rollouts = rollouts
        self._locks = locks
        self._autoscaler = autoscaler
        self._revocations = revocations
        self._apply = apply
        self._plan = plan
        self._emit = emit
        self._scaled: dict[str, int] = {}
        """By service, the number of replicas that was asked for last."""

    # For the control socket

    def begin(self, request: AnyRequest) -> OperationStatus:
        """Begin an operation; raise OperationRefused if the request cannot be carried out."""
        return self.start(request).status

    def operations(self) -> list[OperationStatus]:
        return [operation.status for operation in self._registry.all()]

    def operation(self, identifier: str) -> OperationStatus | None:
        found = self._registry.find(identifier)
        return found.status if found else None

    async def changes(self) -> Applied:
        """Return what an `apply` would change."""
        self._phase.require_ready()
        return (await self._apply.read()).applied

    # For callers within the supervisor's process

    def start(self, request: AnyRequest) -> Operation:
        self._phase.require_ready()
        services, work = self._work(request)
        return self._registry.begin(request.kind, services, work, locked=isinstance(request, Roll))

    async def wait(self, operation: Operation) -> None:
        """Wait for the end of an operation. If it failed, raise its error."""
        await self._registry.wait(operation)

    def renew(self) -> None:
        """Apply the project's file and replace every replica, as SIGHUP requests."""
        try:
            self._phase.require_ready()
        except NotReady as error:
            self._emit(ReloadFailed("files (SIGHUP)", str(error)))
            return
        if any(each.kind == _RENEW and each.state == "running" for each in self._registry.all()):
            self._emit(ReloadFailed("files (SIGHUP)", "a previous SIGHUP is still being processed"))
            return
        self._registry.begin(_RENEW, [], self._renew)

    async def reload(self, what: str) -> None:
        """Make the gateway reload keys and certificates."""
        await self._membership.reload(self._plan)
        self._emit(Reloaded(what))

    # How each request is carried out

    def _work(self, request: AnyRequest) -> tuple[Sequence[str], Work]:
        """Return the services that a request changes, and the work that carries it out.

        If the request has to be refused at once, raise the reason as an EscalaError.
        """
        match request:
            case Scale(service, count):
                return [service], self._scale(service, count)
            case Drain(replica, drained):
                return self._drain(replica, drained)
            case Apply():
                self._locks.require_free([PROJECT])
                return [], self._apply.run
            case Roll(services, canary):
                return self._roll(services, canary)
            case Revoke(subject, value, expires_at):
                return [], partial(self._revoke, subject, value, expires_at)
            case Reload(what):
                return [], lambda operation: self.reload(what)

    def _scale(self, service: str, count: int) -> Work:
        self._require_known([service])
        least = min(1, self._replicas.project.config.services[service].replicas.min)
        if not least <= count <= MAX_REPLICAS:
            raise CountOutOfRange(service, count, least, MAX_REPLICAS)
        with self._locks.hold([service], "scaling"):  # not held until the replicas are ready: one may never be
            self._autoscaler.begin_anew(service)
            present = {replica.number for replica in self._replicas.of(service)}
            before, after = self._replicas.scale(service, count)
        self._emit(Scaled(service, before, after))
        self._scaled[service] = count
        return partial(self._until_scaled, service, count, present)

    async def _until_scaled(self, service: str, count: int, present: set[int], operation: Operation) -> None:
        """Wait until exactly `count` replicas serve; `present` are the numbers of those that were there before.

        Raise OperationRefused if the service is scaled to another number in the meantime, ReplicaNotReady if a new
        replica cannot start.
        """
        while True:
            staying, all_of_it = self._replicas.staying(service), self._replicas.of(service)
            changing = self._locks.holder(service)  # such as a rollout, which has one more for a while
            wanted = self._scaled.get(service)
            if wanted != count or (len(staying) != count and changing is None):
                raise OperationRefused(f"{service} was scaled again in the meantime, to {len(staying)}")
            for replica in staying:
                if replica.number not in present and replica.child.restarts and not replica.serves:
                    raise ReplicaNotReady(replica.name, replica.why_not())
            ready = sum(replica.serves or replica.drained for replica in staying)
            if (ready, len(all_of_it)) == (count, count):
                operation.report(f"{service}: {count} of {count} replicas ready", count, count)
                return
            words = f"{service}: {ready} of {count} replicas ready, {len(all_of_it) - ready} starting or leaving"
            if words != operation.step:
                operation.report(words, ready, count)
            await asyncio.sleep(_POLL_SECONDS)

    def _drain(self, replica: str, drained: bool) -> tuple[Sequence[str], Work]:
        found = self._replicas.find(replica)
        if found is None:
            raise UnknownReplica(replica, [each.name for each in self._replicas.all()])
        if found.leaving:
            raise OperationRefused(f"{replica} is already being removed")
        self._locks.require_free([found.service])

        async def work(operation: Operation) -> None:
            await self._replicas.drain(replica, drained)
            self._emit(Drained(replica, drained))
            if drained:
                operation.report(f"waiting for the requests of {replica}")
            busy = self._membership.is_busy
            while found.drained and not found.leaving and await busy(found.service, found.number):  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)

        return [found.service], work

    def _roll(self, services: Sequence[str] | None, canary: Canary | None) -> tuple[Sequence[str], Work]:
        chosen = list(dict.fromkeys(self._replicas.project.config.services if services is None else services))
        self._require_known(chosen)

        async def work(operation: Operation) -> None:
            releases = {service: self._replicas.release_of(service) for service in chosen}
            await self._rollouts.roll_all(releases, operation.report, canary)

        return chosen, work

    async def _revoke(self, subject: str, value: str, expires_at: float | None, operation: Operation) -> None:
        longest = self._replicas.project.config.auth.max_ttl
        await self._revocations.add(subject, value, expires_at or never_later_than(longest))
        self._emit(Revoked(subject))

    async def _renew(self, operation: Operation) -> None:
        before = set(self._replicas.project.config.services)
        try:
            await self._apply.run(operation)
            rolled = operation.applied.rolling if operation.applied else []
            rest = [  # what has just been started is new already
                service
                for service in self._replicas.project.config.services
                if service in before and service not in rolled
            ]
            with self._locks.hold(rest, f"SIGHUP (operation {operation.id})"):
                _, work = self._roll(rest, None)
                await work(operation)
        except (EscalaError, OSError) as error:
            self._emit(ReloadFailed("files (SIGHUP)", str(error)))
            raise

    def _require_known(self, services: Sequence[str]) -> None:
        known = self._replicas.project.config.services
        for service in services:
            if service not in known:
                raise UnknownService(service, list(known))
