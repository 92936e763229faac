"""The Runtime API's client, against a scripted master."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from escala.config import Address, UnixSocket
from escala.errors import ReloadRefused, RuntimeRefused
from escala.gateway.haproxy.runtime_api import RuntimeApi
from escala.gateway.topology.servers import Server
from tests.gateway.haproxy.scripted import ScriptedHAProxy, row


@pytest.fixture
async def haproxy(folder: Path) -> AsyncIterator[ScriptedHAProxy]:
    async with ScriptedHAProxy(folder / "m.sock").running() as scripted:
        yield scripted


def server(state: str = "ready", endpoint: Address | UnixSocket = UnixSocket("/x")) -> Server:
    return Server(1, endpoint, state)  # type: ignore[arg-type]


async def test_a_ready_replica_gets_weight_limit_and_state(haproxy: ScriptedHAProxy) -> None:
    await RuntimeApi(haproxy.socket).apply("web", server(), 7)
    assert haproxy.commands == [
        "set server web/1 weight 100",
        "set maxconn server web/1 7",
        "set server web/1 state ready",
        "set server web/1 health up",
    ]


async def test_a_replica_on_a_port_is_moved_first(haproxy: ScriptedHAProxy) -> None:
    await RuntimeApi(haproxy.socket).apply("web", server(endpoint=Address("127.0.0.1", 5001)), 7)
    assert haproxy.commands[0] == "set server web/1 addr 127.0.0.1 port 5001"


async def test_old_workers_are_told_too_and_may_end_meanwhile(haproxy: ScriptedHAProxy) -> None:
    haproxy.workers = [200, 100]
    await RuntimeApi(haproxy.socket).apply("web", server("maint"), 7)
    assert haproxy.commands == ["set server web/1 state maint"] * 2


async def test_a_refused_command_is_said_with_its_words(haproxy: ScriptedHAProxy) -> None:
    haproxy.answers["set server"] = "No such server."
    with pytest.raises(RuntimeRefused, match="HAProxy refused 'set server web/1 state maint': No such server"):
        await RuntimeApi(haproxy.socket).apply("web", server("maint"), 7)


async def test_a_refused_reload_is_said_with_its_words(haproxy: ScriptedHAProxy) -> None:
    haproxy.answers["reload"] = "Success=0\n--\n[ALERT]    (1) : config : no such thing\n"
    with pytest.raises(ReloadRefused, match=r"HAProxy kept the old configuration; .*no such thing"):
        await RuntimeApi(haproxy.socket).reload()


async def test_a_master_that_is_gone_is_an_oserror(folder: Path) -> None:
    with pytest.raises(OSError):
        await RuntimeApi(folder / "nobody").command("show info")


async def test_traffic_is_told_by_worker(haproxy: ScriptedHAProxy) -> None:
    haproxy.workers = [200, 100]
    haproxy.stats = {200: [row("web", "1", requests=3)], 100: [row("web", "1", requests=40), row("web:1", "1")]}
    found = await RuntimeApi(haproxy.socket).traffic()
    assert {pid: [(each.service, each.server, each.requests) for each in all_of] for pid, all_of in found.items()} == {
        200: [("web", "1", 3)],
        100: [("web", "1", 40)],
    }


async def test_an_answer_that_was_cut_off_is_none(haproxy: ScriptedHAProxy) -> None:
    haproxy.stats = {100: [row("web", "1")[:20]]}
    with pytest.raises(ConnectionError, match="cut off"):
        await RuntimeApi(haproxy.socket).traffic()
