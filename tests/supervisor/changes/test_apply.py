"""`apply` before a scripted HAProxy: nothing of the running project changes before the switch."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from escala.config import RouteSettings
from escala.errors import ConfigError, EscalaError, ReloadRefused, ReplicaNotReady, RolloutStopped, ServiceBusy
from escala.project.project import Project
from escala.supervisor.changes.apply import ApplyOperation
from escala.supervisor.changes.canary_watch import CanaryWatch
from escala.supervisor.changes.operation_registry import Operation
from escala.supervisor.changes.rollout_registry import RolloutRegistry
from tests.gateway.haproxy.scripted import ScriptedGateway
from tests.supervisor.parts import BREAK, Parts, command, parts_of
from tests.support import eventually

FAST = {"stop_timeout": "1s", "health": "tcp", "start_timeout": "10s", "drain_timeout": "1s"}


def toml(services: Mapping[str, Mapping[str, Any]], head: str) -> str:
    """Write a project's file."""
    lines = [head if "[project]" in head else f'[project]\nname = "tests"\n{head}']
    for name, service in services.items():
        table = {"command": command(), **FAST, **service}
        lines.append(f"[services.{name}]")
        lines += [f"{key} = {literal(value)}" for key, value in table.items()]
        lines.append('rollout = { settle = "50ms" }')
    return "\n".join(lines) + "\n"


def literal(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {literal(each)}" for key, each in value.items()) + " }"
    if isinstance(value, str | bool):
        return json.dumps(value)
    return str(value)


class Applying:
    def __init__(self, folder: Path, parts: Parts, gateway: ScriptedGateway) -> None:
        self.file, self.parts, self.gateway = folder / "escala.toml", parts, gateway
        watch = CanaryWatch(gateway.membership)
        self.rollouts = RolloutRegistry(parts.replicas, parts.locks, watch, parts.events.append)
        self.apply = ApplyOperation(
            gateway.configuration,
            gateway.membership,
            parts.replicas,
            self.rollouts,
            parts.locks,
            parts.events.append,
        )

    def write(self, head: str = "", **services: Mapping[str, Any]) -> None:
        self.file.write_text(toml(services, head))

    async def run(self) -> Operation:
        operation = Operation("1", "apply", self.parts.events.append)
        await self.apply.run(operation)
        return operation

    @property
    def project(self) -> Project:
        return self.parts.replicas.project


@asynccontextmanager
async def applying(folder: Path, head: str = "", **services: Mapping[str, Any]) -> AsyncIterator[Applying]:
    (folder / "escala.toml").write_text(toml(services, head))
    project = Project.open(folder / "escala.toml", environ={})
    gateway = ScriptedGateway(project.layout, project.topology)
    async with gateway.scripted.running(), parts_of(project, gateway.membership) as parts:
        gateway.servers = cast(Any, parts.replicas).servers()
        gateway.all_servers = parts.replicas.servers  # type: ignore[method-assign]
        cast(Any, gateway.membership)._servers = parts.replicas.servers
        await gateway.configuration.prepare(gateway.plan)
        await gateway.membership.opened()
        yield Applying(folder, parts, gateway)


async def test_a_refused_switch_changes_nothing_and_takes_new_services_away(folder: Path) -> None:
    async with applying(folder, web={}) as this:
        before, release = this.project, this.parts.replicas.release_of("web")
        this.gateway.scripted.answers["reload"] = "Success=0\n--\n[ALERT]    (1) : config : no\n"
        this.write(web={"environment": {"A": "1"}}, fresh={})
        with pytest.raises(ReloadRefused):
            await this.run()
        assert this.project is before
        assert this.parts.replicas.release_of("web") is release
        assert all(replica.release is before for replica in this.parts.replicas.of("web"))
        assert this.parts.replicas.staying("fresh") == []
        assert this.parts.locks.holder("web") is None


async def test_a_new_service_that_does_not_start_changes_nothing(folder: Path) -> None:
    async with applying(folder, web={}) as this:
        before = this.project
        this.write(web={}, fresh={"command": command(BREAK)})
        with pytest.raises(ReplicaNotReady, match="fresh did not become ready"):
            await this.run()
        assert this.project is before
        assert not this.gateway.scripted.asked("reload")


async def test_a_wrong_file_changes_nothing(folder: Path) -> None:
    async with applying(folder, web={}) as this:
        before = this.project
        this.write(web={"threads": 0})
        with pytest.raises(ConfigError):
            await this.run()
        assert this.project is before
        assert not this.gateway.scripted.asked("reload")


async def test_replicas_that_start_meanwhile_are_made_of_what_runs(folder: Path) -> None:
    """The autoscaler may add one of an old service while a new service starts; the new file may yet be refused."""
    async with applying(folder, web={}) as this:
        before = this.project
        slow = "import time; time.sleep(60)"
        this.write(web={"environment": {"A": "1"}}, fresh={"command": command(slow), "start_timeout": "1s"})

        running = asyncio.create_task(this.run())

        async def started() -> bool:
            return bool(this.parts.replicas.of("fresh"))

        await eventually(started, "the new service starts")
        assert this.project is before
        added = this.parts.replicas.add("web")
        assert added.release is before
        # A HAProxy that dies now comes back with what runs.
        assert set(this.parts.replicas.servers()) == {"web", "platform"}
        with pytest.raises(EscalaError):
            await running
        assert added.release is before


async def test_the_switch_is_committed_before_replicas_are_replaced(folder: Path) -> None:
    async with applying(folder, web={}) as this:
        this.write(web={"environment": {"A": "1"}}, fresh={})
        operation = await this.run()
        assert operation.applied is not None
        assert operation.applied.rolling == ["web"]
        assert set(this.project.config.services) == {"web", "fresh"}
        assert this.parts.serving("web") == [2]
        assert this.parts.serving("fresh") == [1]
        assert this.parts.replicas.release_of("web") is this.project
        assert len(this.gateway.scripted.asked("reload")) == 1


async def test_a_rollout_that_is_stopped_keeps_the_switch_and_the_old_replicas(folder: Path) -> None:
    async with applying(folder, web={}) as this:
        before = this.project
        this.write(web={"command": command(BREAK)})
        with pytest.raises(RolloutStopped):
            await this.run()
        assert this.project is not before
        assert this.parts.serving("web") == [1]
        assert this.parts.replicas.release_of("web") is before


async def test_a_busy_service_is_told_before_anything_is_changed(folder: Path) -> None:
    async with applying(folder, web={}) as this:
        before = this.project
        this.write(web={"replicas": 2})
        with this.parts.locks.hold(["web"], "recycling"), pytest.raises(ServiceBusy, match="recycling is under way"):
            await this.run()
        assert this.project is before
        assert not this.gateway.scripted.asked("reload")


async def test_one_apply_at_a_time(folder: Path) -> None:
    async with applying(folder, web={}) as this:
        gate = this.gateway.scripted.gates["reload"] = asyncio.Event()
        this.write("[gateway]\ntimeout = '5s'", web={})
        first = asyncio.create_task(this.run())

        async def asked() -> bool:
            return bool(this.gateway.scripted.asked("reload"))

        await eventually(asked, "the first is switching")
        with pytest.raises(ServiceBusy, match=r"the project is busy: apply \(operation"):
            await this.run()
        gate.set()
        await first


RESTART_ONLY: dict[str, tuple[str, Callable[[Project], object], object]] = {
    "project.name": ('[project]\nname = "other"', lambda project: project.name, "tests"),
    "project.state": (
        '[project]\nname = "tests"\nstate = "elsewhere"',
        lambda project: project.layout.state.name,
        ".escala",
    ),
    "project.prepare": ("[project]\nname = 'tests'\nprepare = 'true'", lambda p: p.config.project.prepare, None),
    "gateway.bind": ("[gateway]\nbind = '127.0.0.1:9'", lambda project: project.config.gateway.bind.port, 8000),
    "gateway.admin": ("[gateway]\nadmin = '127.0.0.1:9'", lambda project: project.config.gateway.admin, None),
    "gateway.access_log.enabled": (
        "[gateway.access_log]\nenabled = false",
        lambda project: project.config.gateway.access_log.enabled,
        True,
    ),
    "engines.postgres.url": (
        "[engines.postgres]\nurl = 'postgresql://a:secret@h/d'",
        lambda project: project.config.engines.postgres.url,
        None,
    ),
}


@pytest.mark.parametrize("key", RESTART_ONLY)
async def test_what_only_a_restart_takes_over_stays_as_it_runs(folder: Path, key: str) -> None:
    head, value, running = RESTART_ONLY[key]
    async with applying(folder, web={}) as this:
        issuer = this.project.config.issuer
        this.write(head, web={})
        for _ in range(2):  # it is still told the second time
            operation = await this.run()
            assert operation.applied is not None
            assert [(change.key, change.later) for change in operation.applied.changes] == [(key, True)]
            assert operation.applied.rolling == []
            assert value(this.project) == running
            assert this.project.config.issuer == issuer
            assert "secret" not in str(operation.applied)
        assert not this.gateway.scripted.asked("reload")


async def test_a_file_that_clashes_with_what_only_a_restart_changes_is_refused(folder: Path) -> None:
    async with applying(folder, "[gateway]\nbind = '127.0.0.1:8123'", web={}) as this:
        this.write("[gateway]\nbind = '127.0.0.1:8124'", web={"ports": [8123], "command": "run $PORT"})
        with pytest.raises(ConfigError, match=r"port 8123 is already used by gateway\.bind"):
            await this.run()


async def test_a_value_that_is_written_out_with_its_default_is_applied(folder: Path) -> None:
    """It overrides what stands above it: here, a route that is to need a token again."""
    async with applying(folder, "[gateway]\npublic = true", web={}) as this:
        assert all(route.policy.public for route in this.project.topology.reaching["web"])
        this.write("[gateway]\npublic = true", web={"public": False})
        operation = await this.run()
        assert operation.applied is not None
        assert [change.key for change in operation.applied.changes] == ["services.web.public"]
        assert len(this.gateway.scripted.asked("reload")) == 1
        assert not this.project.config.effective("web", RouteSettings(path="/x")).policy.public


async def test_a_file_that_was_applied_is_no_change_any_more(folder: Path) -> None:
    async with applying(folder, web={}) as this:
        this.write("[gateway]\ntimeout = '5s'", web={"replicas": 2})
        await this.run()
        again = (await this.apply.read()).applied
        assert (again.changes, again.rolling) == ([], [])


async def test_more_connections_than_the_running_server_accepts_are_told(folder: Path) -> None:
    async with applying(folder, web={}) as this:
        this.apply._connections = lambda: 100
        this.write("[database]\npool = 90", web={})
        (warning,) = (await this.apply.read()).applied.warnings
        assert "which accepts 100 until the project is restarted" in warning
