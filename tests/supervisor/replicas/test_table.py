"""Where replicas listen."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from escala.config import Address, Endpoint, UnixSocket
from escala.errors import StartError
from escala.gateway.topology.servers import Server
from escala.processes.child import Child
from escala.processes.lifecycle import Lifecycle
from escala.processes.ports import free_port
from escala.processes.process import has_ended
from escala.processes.records import Records
from escala.processes.registry import Registry
from escala.project.layout import Layout
from escala.project.project import Project
from escala.supervisor.replicas.endpoints import Endpoints
from escala.supervisor.replicas.table import ReplicaTable
from tests.supervisor.parts import parts_of, project_in
from tests.support import eventually, minimal_config

SLEEP = f"{sys.executable} -c 'import time; time.sleep(60)'"


class Members:
    async def update(self, service: str, server: Server) -> None: ...
    async def remove(self, service: str, number: int) -> None: ...
    async def until_idle(self, service: str, number: int, seconds: float) -> None: ...


@pytest.fixture
async def replicas(folder: Path) -> AsyncIterator[ReplicaTable]:
    config = minimal_config(
        services={
            "web": {"command": f"{SLEEP} $SOCKET"},
            "pinned": {"command": f"{SLEEP} $PORT", "ports": [free_port()], "replicas": 2},
        }
    )
    project = Project(folder / "escala.toml", config, Layout(folder / ".escala"))
    project.layout.create()

    def make_child(name: str, lifecycle: Lifecycle) -> Child:
        registry = Registry(project.layout.processes, Records(lambda event: None))
        return Child(name, lifecycle, emit=lambda event: None, output=lambda lines: None, registry=registry)

    made = ReplicaTable(project, make_child, environment=lambda *_: {}, members=Members(), emit=lambda event: None)
    yield made
    for child in made.children.values():
        await child.stop()


def endpoint(replicas: ReplicaTable, service: str, number: int) -> Endpoint:
    return next(server.endpoint for server in replicas.servers()[service] if server.number == number)


async def test_sockets_and_pinned_ports_are_known_before_a_replica_is_prepared(replicas: ReplicaTable) -> None:
    for _ in range(2):
        replicas.add("web")
        replicas.add("pinned")
    run = replicas.project.layout.run
    assert [endpoint(replicas, "web", number) for number in (1, 2)] == [
        UnixSocket(str(run / "web.1.sock")),
        UnixSocket(str(run / "web.2.sock")),
    ]
    (port,) = replicas.services["pinned"].ports
    assert endpoint(replicas, "pinned", 1) == Address("127.0.0.1", port)

    async def has_a_free_port() -> bool:
        free = endpoint(replicas, "pinned", 2)
        return isinstance(free, Address) and free.port > 1024

    await eventually(has_a_free_port, "the second is prepared")
    assert endpoint(replicas, "pinned", 2) != endpoint(replicas, "pinned", 1)


async def test_what_is_in_the_way_of_a_socket_is_said_and_holds_up_nobody(replicas: ReplicaTable) -> None:
    replicas.project.layout.replica_socket("web", 1).mkdir()
    with pytest.raises(StartError, match=r"web\.1\.sock blocks web/1's socket; remove it \(Is a directory\)"):
        Endpoints(replicas.project).require_first()
    replica = replicas.add("web")
    assert not await replica.child.wait_tried()
    assert "blocks web/1's socket" in replica.why_not()
    await replicas.retire(replica)
    assert replicas.of("web") == []


async def test_a_socket_that_was_left_behind_is_out_of_the_way(replicas: ReplicaTable) -> None:
    left = replicas.project.layout.replica_socket("web", 1)
    left.touch()
    replica = replicas.add("web")

    async def runs() -> bool:
        return replica.child.process is not None

    await eventually(runs, "it runs")
    assert not left.exists()
    left.touch()  # as if the replica had made it
    await replicas.retire(replica)
    assert not left.exists()
    assert replica.child.process is not None
    assert has_ended(replica.child.process.pid)


async def test_scaling_down_spares_the_replicas_that_serve(folder: Path) -> None:
    """The first may be the one that crashes, or that somebody drained."""
    project = project_in(folder, web={"replicas": 3})
    async with parts_of(project) as parts:
        first, second, third = parts.replicas.of("web")
        await parts.replicas.drain(first.name, wanted=True)
        second.child._become("waiting")  # as in a crash loop
        parts.replicas.scale("web", 1)
        assert [replica.name for replica in parts.replicas.staying("web")] == [third.name]
        second.child._become("serving")


async def test_scaling_down_takes_the_highest_numbers_where_all_serve(folder: Path) -> None:
    async with parts_of(project_in(folder, web={"replicas": 3})) as parts:
        parts.replicas.scale("web", 1)
        assert [replica.number for replica in parts.replicas.staying("web")] == [1]


async def test_a_replica_leaves_in_order(folder: Path) -> None:
    async with parts_of(project_in(folder, web={})) as parts:
        (replica,) = parts.replicas.of("web")
        parts.members.history.clear()
        await parts.replicas.retire(replica)
        assert parts.members.history == ["web/1 drain", "web/1 idle", "web/1 removed"]
