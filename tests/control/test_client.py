"""The control socket's two sides together."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from escala.control.client import Client
from escala.control.event_bus import EventBus
from escala.control.messages import AnyRequest, Applied, OperationStatus, Refusal, Scale
from escala.control.server import ControlServer
from escala.errors import EscalaError, NotRunning, ServiceBusy, TimedOut
from escala.events import OperationChanged, Scaled
from escala.project.layout import Layout
from escala.project.project import Project
from tests.support import minimal_config


class Operations:
    """Stands where a supervisor's operations stand."""

    def __init__(self) -> None:
        self.status = OperationStatus(
            id="7",
            kind="scale",
            services=["web"],
            state="running",
            step="",
            done=0,
            total=0,
            applied=None,
            error=None,
            started_at=0.0,
            ended_at=None,
        )
        self.refuses: EscalaError | None = None
        self.stopped: list[str] = []
        self.bus = EventBus(lambda event: None)

    async def changes(self) -> Applied:
        return Applied([], [])

    def begin(self, request: AnyRequest) -> OperationStatus:
        if self.refuses:
            raise self.refuses
        return self.status

    def operations(self) -> list[OperationStatus]:
        return [self.status]

    def operation(self, identifier: str) -> OperationStatus | None:
        return self.status if identifier == self.status.id else None

    async def take(self, *, brief: bool) -> Any:
        raise NotImplementedError

    def end(self, error: EscalaError | None = None) -> None:
        self.status.state = "failed" if error else "succeeded"
        self.status.error = Refusal.of(error) if error else None
        self.bus.emit(OperationChanged("7", "scale", self.status.state, "", 0, 0))


class Served:
    def __init__(self, folder: Path) -> None:
        layout = Layout(folder / "s")
        layout.create()
        self.operations = Operations()
        self.project = Project(folder / "escala.toml", minimal_config(), layout)
        self.client = Client(self.project)
        self.server = ControlServer(
            layout.control_socket,
            operations=self.operations,
            status=self.operations.take,
            subscribe=self.operations.bus.subscribe,
            stop=self.operations.stopped.append,
        )

    async def follow(self, timeout: float, **more: Any) -> OperationStatus:
        begun = await asyncio.to_thread(self.client.begin, Scale("web", 2))
        return await asyncio.to_thread(self.client.follow, begun, timeout, **more)


@pytest.fixture
async def served(folder: Path) -> AsyncIterator[Served]:
    made = Served(folder)
    made.server.start()
    yield made
    await made.server.close()


async def test_an_operation_is_followed_to_its_end(served: Served) -> None:
    steps: list[str] = []
    following = asyncio.create_task(served.follow(20, progress=lambda status: steps.append(status.state)))
    await asyncio.sleep(0.2)
    served.operations.end()
    assert (await following).state == "succeeded"
    assert steps[-1] == "succeeded"


async def test_one_that_has_ended_before_is_seen_at_once(served: Served) -> None:
    served.operations.end()
    assert (await served.follow(5)).state == "succeeded"


async def test_its_error_is_raised_with_its_exit_code(served: Served) -> None:
    served.operations.end(ServiceBusy("web", "a rollout"))
    with pytest.raises(EscalaError, match="web is busy"):
        await served.follow(5)


async def test_a_refusal_is_raised_where_it_was_asked(served: Served) -> None:
    served.operations.refuses = ServiceBusy("web", "a rollout")
    with pytest.raises(EscalaError, match="web is busy"):
        await asyncio.to_thread(served.client.begin, Scale("web", 2))


async def test_the_time_is_up_also_while_other_events_come(served: Served) -> None:
    following = asyncio.create_task(served.follow(1))
    for _ in range(60):
        await asyncio.sleep(0.05)
        served.operations.bus.emit(Scaled("other", 1, 2))
        if following.done():
            break
    with pytest.raises(TimedOut, match="timed out after 1 s"):
        await following


async def test_a_client_that_stops_reading_does_not_hold_up_the_end(served: Served) -> None:
    reader = socket.socket(socket.AF_UNIX)
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    await asyncio.to_thread(reader.connect, str(served.project.layout.control_socket))
    reader.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    for _ in range(200):
        await asyncio.sleep(0.005)
        for number in range(50):
            served.operations.bus.emit(Scaled("x" * 1000, 0, number))
    async with asyncio.timeout(10):
        await served.server.close()
    reader.close()


async def test_nobody_there(folder: Path) -> None:
    made = Served(folder)
    await made.server.close()
    with pytest.raises(NotRunning):
        made.client.status()
    assert cast(Any, made).operations.stopped == []
