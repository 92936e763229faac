"""A rollout step by step, with real processes and a gateway that only counts."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from escala.config import Address
from escala.control.messages import Canary
from escala.errors import RolloutStopped, ServiceBusy
from escala.events import CanaryJudged, RolloutEnded, RolloutFailed, RolloutProgressed
from escala.gateway.haproxy.membership import Membership
from escala.processes.ports import free_port
from escala.project.project import Project
from escala.supervisor.changes.canary_watch import CanaryWatch
from escala.supervisor.changes.rollout_registry import RolloutRegistry
from tests.supervisor.parts import BREAK, SERVE, Parts, command, parts_of, project_in
from tests.support import eventually


def registry(parts: Parts) -> RolloutRegistry:
    watch = CanaryWatch(cast(Membership, parts.members))
    return RolloutRegistry(parts.replicas, parts.locks, watch, parts.events.append)


def release(folder: Path, **web: Any) -> Project:
    """Return another release of the project."""
    return project_in(folder, web=web)


async def test_a_new_one_serves_before_an_old_one_goes(folder: Path) -> None:
    async with parts_of(project_in(folder, web={"replicas": 2})) as parts:
        wanted = release(folder, replicas=2, environment={"RELEASE": "2"})
        await registry(parts).roll("web", wanted)
        assert len(parts.serving("web")) == 2
        assert all(replica.release is wanted for replica in parts.replicas.staying("web"))
        assert parts.replicas.release_of("web") is wanted
        drains = [at for at, entry in enumerate(parts.members.history) if entry.endswith(" drain")]
        ready = [at for at, entry in enumerate(parts.members.history) if entry == "web/3 ready"]
        assert ready[0] < drains[0]
        assert [event.replaced for event in parts.of(RolloutProgressed)] == [1, 2]
        assert [event.replaced for event in parts.of(RolloutEnded)] == [2]


async def test_one_that_does_not_become_ready_stops_it_and_the_old_serve_on(folder: Path) -> None:
    project = project_in(folder, web={"replicas": 2})
    async with parts_of(project) as parts:
        rollouts = registry(parts)
        with pytest.raises(
            RolloutStopped, match=r"web/3 did not become ready: .*broken.*2 old replicas continue to serve"
        ):
            await rollouts.roll("web", release(folder, replicas=2, command=command(BREAK)))
        assert parts.serving("web") == [1, 2]
        assert parts.replicas.release_of("web") is project
        status = rollouts.status("web")
        assert status is not None
        assert (status.state, "broken" in status.reason) == ("stopped", True)
        assert len(parts.of(RolloutFailed)) == 1
        await rollouts.roll("web", release(folder, replicas=2, environment={"RELEASE": "3"}))
        assert rollouts.status("web") is None


async def test_progress_is_told_while_it_runs(folder: Path) -> None:
    async with parts_of(project_in(folder, web={"replicas": 2})) as parts:
        rollouts = registry(parts)
        rolling = asyncio.create_task(rollouts.roll("web", release(folder, replicas=2, rollout={"settle": "300ms"})))

        async def runs() -> bool:
            status = rollouts.status("web")
            return status is not None and (status.state, status.replaced, status.wanted) == ("running", 1, 2)

        await eventually(runs, "one of two is replaced")
        await rolling


async def test_several_are_rolled_at_a_time_and_what_stopped_any_is_said(folder: Path) -> None:
    async with parts_of(project_in(folder, web={}, api={})) as parts:
        steps: list[tuple[str, int, int]] = []
        broken = project_in(folder, web={}, api={"command": command(BREAK)})
        with pytest.raises(RolloutStopped, match=r"^api: api/2 did not become ready"):
            await registry(parts).roll_all({"web": broken, "api": broken}, lambda *step: steps.append(step))
        assert (len(parts.serving("web")), parts.serving("api")) == (1, [1])
        assert parts.replicas.release_of("web") is broken
        assert steps


async def test_recycling_locks_the_service(folder: Path) -> None:
    async with parts_of(project_in(folder, web={})) as parts:
        rollouts = registry(parts)
        (old,) = parts.replicas.of("web")
        rollouts.recycle([old])
        assert parts.locks.holder("web") == "recycling"
        with pytest.raises(ServiceBusy):
            rollouts.recycle([old])

        async def replaced() -> bool:
            return parts.locks.holder("web") is None

        await eventually(replaced, "the lock is free again")
        assert parts.serving("web") == [2]
        assert parts.replicas.release_of("web") is parts.project


async def test_a_rollout_that_is_cancelled_frees_the_lock(folder: Path) -> None:
    async with parts_of(project_in(folder, web={})) as parts:
        rollouts = registry(parts)
        rollouts.recycle(parts.replicas.of("web"))
        await rollouts.stop()  # before it has begun to run
        await asyncio.sleep(0)
        assert parts.locks.holder("web") is None
        assert rollouts.status("web") is None


async def test_a_canary_is_judged_by_what_was_counted_while_it_was_watched(folder: Path) -> None:
    async with parts_of(project_in(folder, web={})) as parts:
        parts.members.serve("web", "1", 1000)

        async def count() -> None:
            await eventually(lambda: _known(parts, 2), "the canary is there")
            await asyncio.sleep(0)
            parts.members.serve("web", "1", 1100)
            parts.members.serve("web", "2", 30)

        counting = asyncio.create_task(count())
        await registry(parts).roll("web", release(folder, environment={"R": "2"}), Canary(0.1, 0.5))
        await counting
        (judged,) = parts.of(CanaryJudged)
        assert judged.good
        weights = [parts.members.known["web", number].weight for number in (2,)]
        assert weights == [100]


async def _known(parts: Parts, number: int) -> bool:
    return ("web", number) in parts.members.known


async def test_a_canary_that_dies_ends_the_watch(folder: Path) -> None:
    dies = "import threading, os\nthreading.Timer(0.5, os._exit, [1]).start()\n"
    async with parts_of(project_in(folder, web={})) as parts:
        parts.members.serve("web", "1", 1)
        async with asyncio.timeout(20):
            with pytest.raises(RolloutStopped, match="the canary died"):
                await registry(parts).roll("web", release(folder, command=command(dies + SERVE)), Canary(0.1, 60))
        assert parts.serving("web") == [1]


async def test_without_surge_there_are_never_more_than_wanted(folder: Path) -> None:
    limits = {"max_surge": 0, "max_unavailable": 1, "settle": "50ms"}
    async with parts_of(project_in(folder, web={"replicas": 2, "rollout": limits})) as parts:
        most: list[int] = []
        add = parts.replicas.add

        def counted(*arguments: Any, **more: Any) -> Any:
            made = add(*arguments, **more)
            most.append(len(parts.replicas.of("web")))
            return made

        parts.replicas.add = counted  # type: ignore[method-assign]
        await registry(parts).roll("web", release(folder, replicas=2, rollout=limits, environment={"R": "2"}))
        assert max(most) == 2
        assert len(parts.serving("web")) == 2


async def test_replicas_at_pinned_ports_are_at_them_again_afterwards(folder: Path) -> None:
    code = "import os, socket\ns = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))\nwhile True: s.accept()"
    ports = [free_port(), free_port()]
    table: dict[str, Any] = {"command": command(code, "$PORT"), "ports": ports, "replicas": 2}
    async with parts_of(project_in(folder, web=table)) as parts:
        await registry(parts).roll("web", release(folder, **table, environment={"R": "2"}))
        assert parts.serving("web") == [1, 2]
        assert [cast(Address, replica.endpoint).port for replica in parts.replicas.staying("web")] == ports
