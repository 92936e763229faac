"""What may be asked of a running project, with real processes and a gateway that only counts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from escala.control.messages import Apply, Drain, Roll, Scale
from escala.errors import (
    CountOutOfRange,
    NotReady,
    OperationRefused,
    ReplicaNotReady,
    ServiceBusy,
    UnknownReplica,
    UnknownService,
)
from escala.events import Drained, ReloadFailed, Scaled
from escala.gateway.haproxy.membership import Membership
from escala.supervisor.changes.apply import ApplyOperation
from escala.supervisor.changes.canary_watch import CanaryWatch
from escala.supervisor.changes.operation_registry import Operation, OperationRegistry
from escala.supervisor.changes.rollout_registry import RolloutRegistry
from escala.supervisor.operations import Operations
from escala.supervisor.phase import Phase
from escala.supervisor.replicas.autoscaler import Autoscaler
from escala.supervisor.replicas.backlog import Backlog
from tests.supervisor.parts import BREAK, Members, Parts, command, parts_of, project_in
from tests.support import eventually


class Busy(Members):
    """Says of replicas that they have requests."""

    def __init__(self) -> None:
        super().__init__()
        self.busy: set[tuple[str, int]] = set()

    async def is_busy(self, service: str, number: int) -> bool:
        return (service, number) in self.busy


class Applies:
    """Stands where `apply` stands, and takes nothing over."""

    def __init__(self) -> None:
        self.asked = 0
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def run(self, operation: Operation) -> None:
        self.asked += 1
        await self.goes_on.wait()


class Asked:
    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.members = cast(Busy, parts.members)
        membership, emit = cast(Membership, parts.members), parts.events.append
        self.phase = Phase("tests", "ready")
        self.registry = OperationRegistry(parts.locks, emit)
        self.applies = Applies()
        rollouts = RolloutRegistry(parts.replicas, parts.locks, CanaryWatch(membership), emit)
        self.operations = Operations(
            phase=self.phase,
            registry=self.registry,
            replicas=parts.replicas,
            membership=membership,
            rollouts=rollouts,
            locks=parts.locks,
            autoscaler=Autoscaler(parts.replicas, membership, parts.locks, Backlog(lambda: ""), emit),
            revocations=cast(Any, None),
            apply=cast(ApplyOperation, self.applies),
            plan=cast(Any, None),
            emit=emit,
        )

    async def run(self, request: Any) -> Operation:
        operation = self.operations.start(request)
        await self.operations.wait(operation)
        return operation


@asynccontextmanager
async def asked(folder: Path, **services: Any) -> AsyncIterator[Asked]:
    async with parts_of(project_in(folder, **services), Busy()) as parts:
        made = Asked(parts)
        yield made
        await made.registry.stop()


async def test_scale_is_done_when_so_many_serve(folder: Path) -> None:
    async with asked(folder, web={}) as this:
        operation = await this.run(Scale("web", 3))
        assert this.parts.serving("web") == [1, 2, 3]
        assert operation.status.services == ["web"]
        assert [(event.before, event.after) for event in this.parts.of(Scaled)] == [(1, 3)]
        assert this.parts.locks.holder("web") is None


async def test_scale_fails_where_a_new_replica_cannot_start(folder: Path) -> None:
    async with asked(folder, web={}) as this:
        this.parts.replicas.adopt("web", project_in(folder, web={"command": command(BREAK)}))
        with pytest.raises(ReplicaNotReady, match="web/2"):
            await this.run(Scale("web", 2))
        await this.run(Scale("web", 1))  # the way back is open


async def test_scale_fails_where_somebody_wants_another_number(folder: Path) -> None:
    slow = "import time; time.sleep(60)"
    async with asked(folder, web={}) as this:
        this.parts.replicas.adopt("web", project_in(folder, web={"command": command(slow)}))
        first = this.operations.start(Scale("web", 2))
        await asyncio.sleep(0)
        await this.run(Scale("web", 1))
        with pytest.raises(OperationRefused, match="scaled again in the meantime"):
            await this.operations.wait(first)


async def test_a_drained_replica_is_no_missing_one(folder: Path) -> None:
    async with asked(folder, web={}) as this:
        await this.run(Drain("web/1", drained=True))
        async with asyncio.timeout(20):
            await this.run(Scale("web", 2))


async def test_drain_waits_for_the_last_request(folder: Path) -> None:
    async with asked(folder, web={}) as this:
        this.members.busy.add(("web", 1))
        draining = this.operations.start(Drain("web/1", drained=True))

        async def drained() -> bool:
            return bool(this.parts.of(Drained))

        await eventually(drained, "it gets no new requests")
        assert draining.status.state == "running"
        this.members.busy.clear()
        await this.operations.wait(draining)


async def test_what_cannot_be_is_refused_at_once(folder: Path) -> None:
    async with asked(folder, web={}) as this:
        for request, refusal in (
            (Scale("nobody", 2), UnknownService),
            (Scale("web", 0), CountOutOfRange),
            (Scale("web", 257), CountOutOfRange),
            (Drain("web/9", drained=True), UnknownReplica),
            (Roll(["nobody"]), UnknownService),
        ):
            with pytest.raises(refusal):
                this.operations.start(request)
        assert this.registry.all() == []


async def test_one_operation_at_a_time_for_a_service(folder: Path) -> None:
    async with asked(folder, web={}, api={}) as this:
        rolling = this.operations.start(Roll(["web"]))
        for request in (Roll(["web"]), Roll(None), Scale("web", 2)):
            with pytest.raises(ServiceBusy, match=r"roll \(operation 1\)"):
                this.operations.start(request)
        await this.run(Scale("api", 2))
        await this.operations.wait(rolling)
        assert this.parts.serving("web") == [2]


async def test_hangup_applies_the_file_and_replaces_every_replica(folder: Path) -> None:
    async with asked(folder, web={}, api={}) as this:
        this.operations.renew()
        (renewing,) = this.registry.all()
        await this.operations.wait(renewing)
        assert this.applies.asked == 1
        assert (this.parts.serving("web"), this.parts.serving("api")) == ([2], [2])


async def test_a_second_hangup_waits_for_nobody_and_says_so(folder: Path) -> None:
    async with asked(folder, web={}) as this:
        this.applies.goes_on.clear()
        this.operations.renew()
        this.operations.renew()
        assert "previous SIGHUP" in this.parts.of(ReloadFailed)[0].reason
        assert len(this.registry.all()) == 1
        this.applies.goes_on.set()


@pytest.mark.parametrize("phase", ["starting", "stopping"])
async def test_nothing_is_begun_before_it_is_open_or_while_it_stops(folder: Path, phase: Any) -> None:
    async with asked(folder, web={}) as this:
        this.phase.name = phase
        with pytest.raises(NotReady, match=f"tests is {phase}"):
            this.operations.start(Apply())
        this.operations.renew()
        assert this.applies.asked == 0
        assert phase in this.parts.of(ReloadFailed)[0].reason


async def test_nothing_is_begun_after_the_stop(folder: Path) -> None:
    async with asked(folder, web={}) as this:
        await this.registry.stop()
        with pytest.raises(OperationRefused, match="stopping"):
            this.operations.start(Apply())
