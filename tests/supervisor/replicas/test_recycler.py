"""The recycler: who is replaced, and when not."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from escala.errors import ServiceBusy
from escala.events import Recycling
from escala.gateway.haproxy.membership import Membership
from escala.supervisor.replicas.recycler import Recycler
from escala.supervisor.replicas.replica import Replica
from tests.supervisor.parts import Parts, command, parts_of, project_in
from tests.support import eventually


class Replacing:
    def __init__(self, parts: Parts) -> None:
        self.asked: list[str] = []
        membership = cast(Membership, parts.members)
        self.recycler = Recycler(parts.replicas, membership, parts.locks, self.begin, parts.events.append)
        self.busy = False

    def begin(self, replicas: Sequence[Replica]) -> None:
        if self.busy:
            raise ServiceBusy("web", "a rollout")
        self.asked += [replica.name for replica in replicas]

    async def check(self) -> list[str]:
        self.asked = []
        self.recycler._not_before.clear()  # PAUSE_SECONDS have passed
        await self.recycler._check()
        return self.asked


async def test_one_that_has_served_enough_is_replaced(folder: Path) -> None:
    async with parts_of(project_in(folder, web={"replicas": 2, "max_requests": 10})) as parts:
        replacing = Replacing(parts)
        for number in ("1", "2"):
            parts.members.serve("web", number, 5)
        assert await replacing.check() == []  # what came before it was first seen counts for none
        parts.members.serve("web", "2", 15)
        assert await replacing.check() == ["web/2"]
        assert [event.why for event in parts.of(Recycling)] == ["it has handled 10 requests"]


async def test_one_that_uses_too_much_memory_is_replaced(folder: Path) -> None:
    large = "import os, socket; x = bytearray(64 * 2**20); s = socket.socket(socket.AF_UNIX)\n"
    code = f"{large}s.bind(os.environ['SOCKET']); s.listen()\nwhile True: s.accept()"
    async with parts_of(project_in(folder, web={"max_memory": "32MiB", "command": command(code)})) as parts:
        assert await Replacing(parts).check() == ["web/1"]


async def test_one_whose_socket_is_gone_is_replaced(folder: Path) -> None:
    async with parts_of(project_in(folder, web={})) as parts:
        parts.project.layout.replica_socket("web", 1).unlink()
        assert await Replacing(parts).check() == ["web/1"]


async def test_a_locked_service_is_left_alone(folder: Path) -> None:
    async with parts_of(project_in(folder, web={"max_age": "1ms"})) as parts:
        replacing = Replacing(parts)
        await eventually(replacing.check, "it is a millisecond old")
        parts.events.clear()
        with parts.locks.hold(["web"], "a rollout"):
            assert await replacing.check() == []
        replacing.busy = True  # locked between the look and the replacement
        assert await replacing.check() == []
        assert parts.of(Recycling) == []
        replacing.busy = False
        assert await replacing.check() == ["web/1"]


async def test_a_limit_that_all_exceed_replaces_one_at_a_time(folder: Path) -> None:
    async with parts_of(project_in(folder, web={"replicas": 2, "max_age": "1ms"})) as parts:
        replacing = Replacing(parts)
        assert len(await eventually(replacing.check, "they are a millisecond old")) == 1
        replacing.asked.clear()
        await replacing.recycler._check()  # within PAUSE_SECONDS
        assert replacing.asked == []
