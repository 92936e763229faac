"""The autoscaler: what it sees, and what it leaves to others."""

from pathlib import Path
from typing import cast

import pytest

from escala.events import Rescaled
from escala.gateway.haproxy.membership import Membership
from escala.supervisor.replicas.autoscaler import Autoscaler
from escala.supervisor.replicas.backlog import Backlog
from escala.tasks.store.jobs import Counts
from tests.supervisor.parts import Parts, parts_of, project_in
from tests.support import minimal_config

SCALES = {"replicas": {"min": 1, "max": 4, "target_inflight": 2, "down_after": "1h"}}


def autoscaler(parts: Parts) -> Autoscaler:
    membership = cast(Membership, parts.members)
    return Autoscaler(parts.replicas, membership, parts.locks, Backlog(lambda: ""), parts.events.append)


async def test_the_number_of_replicas_follows_the_load(folder: Path) -> None:
    async with parts_of(project_in(folder, web=SCALES)) as parts:
        scaler = autoscaler(parts)
        parts.members.serve("web", "", 100, inflight=6)
        await scaler._follow()
        assert len(parts.replicas.staying("web")) == 3
        (event,) = parts.of(Rescaled)
        assert (event.before, event.after) == (1, 3)
        assert "6 requests in flight" in scaler.why("web")


async def test_a_locked_service_is_left_alone_and_looked_at_again(folder: Path) -> None:
    async with parts_of(project_in(folder, web=SCALES)) as parts:
        scaler = autoscaler(parts)
        parts.members.serve("web", "", 100, inflight=6)
        with parts.locks.hold(["web"], "a rollout"):
            await scaler._follow()
            assert len(parts.replicas.staying("web")) == 1
            assert parts.of(Rescaled) == []
        await scaler._follow()
        assert len(parts.replicas.staying("web")) == 3


async def test_a_gateway_that_is_silent_changes_nothing(folder: Path) -> None:
    async with parts_of(project_in(folder, web=SCALES)) as parts:
        await autoscaler(parts)._follow()
        assert len(parts.replicas.staying("web")) == 1


async def test_a_worker_whose_tasks_are_slow_to_list_holds_up_no_other(folder: Path) -> None:
    """Its module may take seconds to be imported; a service that sleeps is woken up all the same."""
    web = {"replicas": {"min": 0, "max": 2}}
    (folder / "slow.py").write_text("import time; time.sleep(60)")
    async with parts_of(project_in(folder, web=web)) as parts:
        jobs = {"tasks": "slow", "replicas": {"min": 1, "max": 2}}
        parts.replicas.commit(project_in(folder, web=web, jobs=jobs))
        scaler = autoscaler(parts)
        parts.members.serve("web", "", 1, queued=1, inflight=1)
        await scaler._follow()
        await scaler._follow()
        assert len(parts.replicas.staying("web")) == 1
        await scaler._backlog.close()


@pytest.mark.parametrize("key", ["up_after", "down_after"])
def test_history_is_bounded(key: str) -> None:
    with pytest.raises(ValueError, match="at most 1h"):
        minimal_config(services={"web": {"app": "a:b", "replicas": {"min": 1, "max": 2, key: "2h"}}})


class Queue:
    """Stands where the backlog stands."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        self.forgotten: list[str] = []

    async def of(self, target: str, queues: object, spec: object) -> Counts:
        return Counts(waiting=self.waiting, running=0, oldest_seconds=0.0)

    def forget(self, target: str) -> None:
        self.forgotten.append(target)


async def test_workers_follow_the_jobs_that_wait(folder: Path) -> None:
    rules = {"min": 1, "max": 3, "target_waiting": 10}
    async with parts_of(project_in(folder, web={})) as parts:
        parts.replicas.commit(project_in(folder, web={}, jobs={"tasks": "jobs", "replicas": rules}))
        queue = Queue(waiting=25)
        membership = cast(Membership, parts.members)
        scaler = Autoscaler(parts.replicas, membership, parts.locks, cast(Backlog, queue), parts.events.append)
        await scaler._follow()
        assert len(parts.replicas.staying("jobs")) == 3
        assert "25 jobs" in scaler.why("jobs")
        with parts.locks.hold(["jobs"], "a rollout"):
            await scaler._follow()
        await scaler._follow()
        assert queue.forgotten == ["jobs"]  # its new version may have other tasks


async def test_a_service_that_no_longer_scales_has_no_reason(folder: Path) -> None:
    async with parts_of(project_in(folder, web=SCALES)) as parts:
        scaler = autoscaler(parts)
        parts.members.serve("web", "", 100, inflight=1)
        await scaler._follow()
        assert scaler.why("web")
        parts.replicas.commit(project_in(folder, web={}))
        await scaler._follow()
        assert scaler.why("web") == ""
