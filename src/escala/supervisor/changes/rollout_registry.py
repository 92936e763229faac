"""The rollouts of a running project: at most one of a service at a time, and how the last one ended."""

import asyncio
import time
from collections.abc import Sequence

from escala.control.messages import Canary
from escala.errors import EscalaError
from escala.events import Emit
from escala.gateway.haproxy.membership import Balancer
from escala.gateway.haproxy.runtime_api import Traffic
from escala.project.project import Project
from escala.supervisor.changes.canary import Served
from escala.supervisor.changes.rollout import Rollout, Stopped
from escala.supervisor.replicas.table import Replica, Replicas

_LOOK_EVERY = 0.25


class Rollouts:
    def __init__(self, replicas: Replicas, balancer: Balancer, emit: Emit) -> None:
        self._replicas = replicas
        self._balancer = balancer
        self._emit = emit
        self._running: dict[str, Rollout] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._outcomes: dict[str, str] = {}

    def running(self, service: str) -> bool:
        return service in self._running

    def words(self, service: str) -> str:
        """Say how far a rollout is, or why the last one was stopped; nothing where all is well."""
        running = self._running.get(service)
        if running is not None:
            return f"rolling out: {running.replaced} of {running.wanted} replaced"
        return self._outcomes.get(service, "")

    def require_none(self, service: str) -> None:
        """Raise EscalaError where a service is being rolled out."""
        if service in self._running:
            raise EscalaError(f"{service} is being rolled out; try again when that is over (see `escala status`)")

    def start(self, service: str, release: Project, canary: Canary | None = None) -> None:
        """Begin to replace the replicas of a service; raise EscalaError where that is under way already."""
        self.require_none(service)
        self._outcomes.pop(service, None)
        self._begin(service, release, canary=canary)

    def recycle(self, replicas: Sequence[Replica]) -> None:
        """Begin to replace replicas of one service by others like them, unless it is being rolled out."""
        service = replicas[0].service
        if not self.running(service):
            self._begin(service, self._replicas.release_of(service), only=replicas)

    def _begin(
        self, service: str, release: Project, *, canary: Canary | None = None, only: Sequence[Replica] = ()
    ) -> None:
        rollout = self._running[service] = Rollout(
            self._replicas, service, release, canary=canary, watch=self._watch, emit=self._emit, only=only
        )
        task = asyncio.create_task(self._run(rollout), name=f"rollout of {service}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def outdated(self, project: Project) -> list[str]:
        """Return the services whose replicas would be others if they were started from `project`."""
        return [name for name in project.config.services if self._replicas.would_differ(name, project)]

    async def wait(self) -> None:
        """Wait until none is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self) -> None:
        """Give up what is under way, as everything stops."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, rollout: Rollout) -> None:
        try:
            await rollout.run()
            self._outcomes.pop(rollout.service, None)
        except Stopped as error:
            self._outcomes[rollout.service] = f"the last rollout was stopped: {error}"
        except Exception as error:
            self._outcomes[rollout.service] = f"the last rollout broke off: {error!r}"
            message = {"message": f"the rollout of {rollout.service} broke off", "exception": error}
            asyncio.get_running_loop().call_exception_handler(message)
        finally:
            del self._running[rollout.service]

    async def _watch(self, service: str, numbers: Sequence[str], seconds: float) -> dict[str, Served]:
        """Return what replicas do from now on for so long; one that dies ends the watch."""
        before = await self._counted(service)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(min(_LOOK_EVERY, max(0.0, end - time.monotonic())))
            if any(not r.serves for r in self._replicas.of(service) if str(r.number) == numbers[-1]):
                break
        after = await self._counted(service)
        return {number: _between(before.get(number), after.get(number)) for number in numbers}

    async def _counted(self, service: str) -> dict[str, Traffic]:
        return {each.server: each for each in await self._balancer.traffic() if each.service == service}


def _between(before: Traffic | None, after: Traffic | None) -> Served:
    if after is None:
        return Served(0, 0, 0.0)
    requests, errors = (before.requests, before.errors) if before else (0, 0)
    return Served(max(0, after.requests - requests), max(0, after.errors - errors), float(after.milliseconds))
