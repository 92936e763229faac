"""Operations: an id, how far they are, and how they ended."""

import asyncio

import pytest

from escala.errors import OperationRefused, RolloutStopped, ServiceBusy
from escala.events import Event, OperationChanged
from escala.supervisor.changes.operation_registry import Operation, OperationRegistry
from escala.supervisor.replicas.locks import ServiceLocks


async def test_an_operation_is_told_step_by_step() -> None:
    events: list[Event] = []
    registry = OperationRegistry(ServiceLocks(), events.append)

    async def work(operation: Operation) -> None:
        operation.report("half of it", 1, 2)

    operation = registry.begin("scale", ["web"], work)
    assert operation.status.state == "running"
    await registry.wait(operation)
    status = operation.status
    assert (status.id, status.kind, status.services, status.state) == ("1", "scale", ["web"], "succeeded")
    assert status.ended_at is not None
    told = [(each.state, each.step, each.done, each.total) for each in events if isinstance(each, OperationChanged)]
    assert told == [("running", "half of it", 1, 2), ("succeeded", "half of it", 1, 2)]
    assert registry.find("1") is operation


async def test_a_failure_is_kept_with_its_code() -> None:
    registry = OperationRegistry(ServiceLocks(), lambda event: None)

    async def work(operation: Operation) -> None:
        raise RolloutStopped("web/2 broke")

    operation = registry.begin("roll", ["web"], work)
    with pytest.raises(RolloutStopped):
        await registry.wait(operation)
    refusal = operation.status.error
    assert refusal is not None
    assert (operation.status.state, refusal.code, refusal.error) == ("failed", "rollout_stopped", "web/2 broke")


async def test_a_bug_is_reported_and_ends_it() -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    registry = OperationRegistry(ServiceLocks(), lambda event: None)
    bug = KeyError("x")

    async def work(operation: Operation) -> None:
        raise bug

    operation = registry.begin("roll", [], work)
    with pytest.raises(OperationRefused, match="a bug in Escala"):
        await registry.wait(operation)
    assert reported == [bug]


async def test_what_is_under_way_is_abandoned_at_the_stop() -> None:
    registry = OperationRegistry(ServiceLocks(), lambda event: None)

    async def work(operation: Operation) -> None:
        await asyncio.Event().wait()

    operation = registry.begin("apply", [], work)
    await asyncio.sleep(0)
    await registry.stop()
    error = operation.status.error
    assert error is not None
    assert "the project is stopping" in error.error


async def test_services_are_locked_until_its_end() -> None:
    locks = ServiceLocks()
    registry = OperationRegistry(locks, lambda event: None)

    async def work(operation: Operation) -> None:
        await asyncio.Event().wait()

    registry.begin("roll", ["web"], work, locked=True)
    with pytest.raises(ServiceBusy, match=r"web is busy: roll \(operation 1\) is under way"):
        registry.begin("roll", ["api", "web"], work, locked=True)
    assert [each.id for each in registry.all()] == ["1"]
    await registry.stop()  # before it has begun to run
    await asyncio.sleep(0)
    assert locks.holder("web") is None


async def test_only_the_latest_are_kept() -> None:
    registry = OperationRegistry(ServiceLocks(), lambda event: None)

    async def work(operation: Operation) -> None:
        pass

    for _ in range(150):
        await registry.wait(registry.begin("scale", [], work))
    assert len(registry.all()) <= 101
    assert registry.find("1") is None
    assert registry.find("150") is not None
