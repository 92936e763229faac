"""HAProxy's configuration on disk, and what HAProxy is told: races that real processes rarely show."""

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from escala.config import Config, UnixSocket
from escala.errors import EngineFailed, EscalaError, ReloadRefused
from escala.events import MembershipFailed
from escala.gateway.topology.servers import Server
from escala.gateway.topology.topology import Topology
from escala.project.layout import Layout
from tests.gateway.haproxy.scripted import ScriptedGateway
from tests.support import eventually, minimal_config


def config(timeout: str = "5s", **services: object) -> Config:
    web = {"app": "a:b", "routes": [{"path": "/data", "timeout": timeout}]}
    return minimal_config(services={"web": web, **services})


@pytest.fixture
async def gateway(folder: Path) -> AsyncIterator[ScriptedGateway]:
    made = ScriptedGateway(Layout(folder / "s"), Topology.of(config()))
    async with made.scripted.running():
        yield made


async def test_a_refused_reload_leaves_everything_as_it_was(gateway: ScriptedGateway) -> None:
    await gateway.configuration.prepare(gateway.plan)
    before, deployed = gateway.text, gateway.configuration.deployed
    gateway.scripted.answers["reload"] = "Success=0\n--\n[ALERT]    (1) : config : no\n"
    committed: list[str] = []
    with pytest.raises(ReloadRefused):
        await gateway.configuration.reload(gateway.plan(Topology.of(config("9s"))), lambda: committed.append("x"))
    assert (gateway.text, gateway.configuration.deployed, committed) == (before, deployed, [])


async def test_what_haproxy_would_refuse_is_never_in_place(gateway: ScriptedGateway) -> None:
    await gateway.configuration.prepare(gateway.plan)
    before = gateway.text
    gateway.servers["web"] = [Server(1, UnixSocket("/" + "x" * 300), "ready")]
    with pytest.raises(EscalaError, match="refuses its configuration"):
        await gateway.configuration.check(gateway.plan())
    with pytest.raises(EscalaError, match="refuses its configuration"):
        await gateway.configuration.reload(gateway.plan(), lambda: None)
    assert gateway.text == before
    assert gateway.folders == ["1"]
    assert not gateway.scripted.asked("reload")


async def test_the_commit_is_in_the_moment_in_which_the_plan_holds(gateway: ScriptedGateway) -> None:
    await gateway.configuration.prepare(gateway.plan)
    seen: list[object] = []
    wanted = Topology.of(config("9s"))
    await gateway.configuration.reload(
        gateway.plan(wanted), lambda: seen.append(gateway.configuration.deployed.topology)
    )
    assert seen == [wanted]
    assert gateway.folders == ["2"]


async def test_haproxy_that_dies_during_a_reload_is_prepared_after_it(gateway: ScriptedGateway) -> None:
    """Both write configurations: at the same time they would share a folder, and remove each other's."""
    await gateway.configuration.prepare(gateway.plan)
    gate = gateway.scripted.gates["reload"] = asyncio.Event()
    wanted = Topology.of(config("9s"))
    reload = asyncio.create_task(gateway.configuration.reload(gateway.plan(wanted), lambda: None))

    async def asked() -> bool:
        return bool(gateway.scripted.asked("reload"))

    await eventually(asked, "the reload is under way")
    checks = [asyncio.create_task(gateway.configuration.check(gateway.plan(wanted))) for _ in range(3)]
    prepared = asyncio.create_task(gateway.configuration.prepare(lambda: gateway.plan(wanted)))
    _, waiting = await asyncio.wait({prepared}, timeout=0.3)
    assert waiting
    gate.set()
    await asyncio.gather(reload, prepared, *checks)
    assert gateway.configuration.deployed.number == 3
    assert gateway.configuration.deployed.topology is wanted
    assert (gateway.layout.gateway / "3" / "routes.map").exists()
    assert '"3/routes.map"' in gateway.text


async def test_a_replica_that_became_ready_while_haproxy_started_is_added(gateway: ScriptedGateway) -> None:
    gateway.servers["web"] = [gateway.server(1, "maint")]
    await gateway.configuration.prepare(gateway.plan)
    gateway.servers["web"] = [gateway.server(1), gateway.server(2)]
    await gateway.membership.update("web", gateway.server(2))  # nobody listens yet
    assert gateway.scripted.commands == []
    await gateway.membership.opened()
    assert len(gateway.scripted.asked("add server web/2")) == 1
    assert "set server web/2 state ready" in gateway.scripted.commands
    assert not gateway.scripted.asked("add server web/1")
    assert gateway.events == []


async def test_a_replica_that_becomes_ready_during_a_reload_is_added_after_it(gateway: ScriptedGateway) -> None:
    await gateway.configuration.prepare(gateway.plan)
    await gateway.membership.opened()
    gate = gateway.scripted.gates["reload"] = asyncio.Event()
    reload = asyncio.create_task(gateway.membership.reload(gateway.plan))

    async def asked() -> bool:
        return bool(gateway.scripted.asked("reload"))

    await eventually(asked, "the reload is under way")
    gateway.servers["web"] = [gateway.server(1)]
    update = asyncio.create_task(gateway.membership.update("web", gateway.server(1)))
    gate.set()
    await asyncio.gather(reload, update)
    assert gateway.scripted.commands.index("reload") < gateway.scripted.commands.index(
        gateway.scripted.asked("add server web/1")[0]
    )
    assert ("web", 1) in gateway.configuration.deployed.known


async def test_a_service_that_haproxy_does_not_have_yet_is_not_announced(gateway: ScriptedGateway) -> None:
    await gateway.configuration.prepare(gateway.plan)
    await gateway.membership.opened()
    await gateway.membership.update("next", gateway.server(1))
    await gateway.membership.remove("next", 1)
    assert gateway.scripted.commands == []


async def test_what_haproxy_refuses_of_one_replica_is_reported_and_holds_up_no_other(gateway: ScriptedGateway) -> None:
    await gateway.configuration.prepare(gateway.plan)
    gateway.servers["web"] = [gateway.server(1), gateway.server(2)]
    gateway.scripted.answers["add server web/1"] = "out of memory"
    await gateway.membership.opened()
    (failed,) = (event for event in gateway.events if isinstance(event, MembershipFailed))
    assert (failed.replica, "out of memory" in failed.reason) == ("web/1", True)
    assert "set server web/2 state ready" in gateway.scripted.commands


async def test_a_replica_is_removed_when_its_connections_are_gone(gateway: ScriptedGateway) -> None:
    gateway.servers["web"] = [gateway.server(1)]
    await gateway.configuration.prepare(gateway.plan)
    await gateway.membership.opened()
    gateway.scripted.answers["del server"] = "Server still has connections attached to it, cannot remove it."
    removing = asyncio.create_task(gateway.membership.remove("web", 1))

    async def tried() -> bool:
        return len(gateway.scripted.asked("del server")) > 1

    await eventually(tried, "it is tried again")
    del gateway.scripted.answers["del server"]
    await removing
    assert ("web", 1) not in gateway.configuration.deployed.known
    assert gateway.events == []


async def test_a_replica_that_left_while_haproxy_started_is_removed(gateway: ScriptedGateway) -> None:
    """Its port may be given to another service, which would then get its requests."""
    gateway.servers["web"] = [gateway.server(1), gateway.server(2)]
    await gateway.configuration.prepare(gateway.plan)
    gateway.servers["web"] = [gateway.server(1)]
    await gateway.membership.remove("web", 2)  # nobody listens yet
    assert gateway.scripted.commands == []
    await gateway.membership.opened()
    assert len(gateway.scripted.asked("del server web/2")) == 1
    assert ("web", 2) not in gateway.configuration.deployed.known


async def test_a_full_disk_is_a_reason_and_no_bug(gateway: ScriptedGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    await gateway.configuration.prepare(gateway.plan)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gateway.configuration, "_lay_out", full)
    with pytest.raises(EngineFailed, match=r"cannot be written: .*No space left"):
        await gateway.configuration.check(gateway.plan())
