"""`escala apply`: from the configuration that runs to the one in the file, without a dropped request.

The order makes it safe: read and validate, let HAProxy check, start what is new and wait until it is ready, switch the
routes, and only then let go of what is no longer wanted, and begin to roll out the services whose replicas would be
others now. Until the switch a failure leaves everything as it was.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from escala.config import Config
from escala.config.difference import Change, difference
from escala.control.messages import Applied
from escala.errors import EscalaError
from escala.gateway.haproxy.configuration import Gateway, Plan
from escala.gateway.haproxy.membership import Balancer
from escala.project.project import Project
from escala.supervisor.changes.rollout_registry import Rollouts
from escala.supervisor.replicas.spec import services
from escala.supervisor.replicas.table import Replicas, require_sockets


class Application:
    """`adopt` makes a project the one that runs."""

    def __init__(
        self,
        gateway: Gateway,
        balancer: Balancer,
        replicas: Replicas,
        rollouts: Rollouts,
        adopt: Callable[[Project], None],
    ) -> None:
        self._gateway = gateway
        self._balancer = balancer
        self._replicas = replicas
        self._rollouts = rollouts
        self._adopt = adopt
        self._turn = asyncio.Lock()
        self._pending: list[Change] = []
        """What was taken over, but takes effect only after a restart."""

    def read(self, project: Project) -> tuple[Project, Applied]:
        """Read the file of a running project again; return what it says and what is different. Raises ConfigError."""
        wanted = Project.open(project.file, settings=project.settings, single=project.single)
        changes = difference(project.config, wanted.config)
        return wanted, Applied(changes + self._still_pending(changes), self._rollouts.outdated(wanted))

    async def apply(self, project: Project) -> Applied:
        """Take over what the project's file says now, and begin to roll out what that changes in replicas."""
        async with self._turn:
            wanted, applied = await asyncio.to_thread(self.read, project)
            for service in {*applied.rolling, *_recounted(project.config, wanted.config)}:
                self._rollouts.require_none(service)
            if wanted.config != project.config:
                await self._take_over(project, wanted, applied)
            for service in applied.rolling:
                self._rollouts.start(service, wanted)
            return applied

    async def _take_over(self, project: Project, wanted: Project, applied: Applied) -> None:
        require_sockets(wanted)
        present = self._replicas.backends()
        plan = Plan(wanted.config, {**self._replicas.services, **services(wanted.config)}, present)
        await asyncio.to_thread(self._gateway.check, plan)
        fresh = wanted.config.services.keys() - project.config.services.keys()
        await self._start(project, wanted, fresh)
        for service in applied.rolling:
            self._replicas.hold(service)
        self._adopt(wanted)
        for service in wanted.config.services.keys() - set(applied.rolling):
            self._replicas.release(service, wanted)  # the same for the process, but not for how long it may take
        try:
            await self._balancer.reload()
        except EscalaError:
            self._adopt(project)
            self._let_go(fresh)
            raise
        self._count(project.config, wanted.config)
        self._let_go(project.config.services.keys() - wanted.config.services.keys())
        self._pending = [change for change in applied.changes if change.later]

    def _still_pending(self, changes: Sequence[Change]) -> list[Change]:
        """Return what earlier applications left for a restart, unless it has been changed (back) since."""
        again = {change.key for change in changes}
        return [change for change in self._pending if change.key not in again]

    async def _start(self, project: Project, wanted: Project, fresh: set[str]) -> None:
        """Start the services that are new, beside those that run; take them away again where one cannot start."""
        if not fresh:
            return
        both = wanted.config.model_copy(update={"services": {**project.config.services, **wanted.config.services}})
        self._replicas.project = replace(wanted, config=both)
        try:
            for service in fresh:
                self._replicas.scale(service, wanted.config.services[service].replicas.min)
            awake = [service for service in fresh if self._replicas.staying(service)]
            await asyncio.gather(*(self._replicas.wait_ready(service) for service in awake))
        except EscalaError:
            self._let_go(fresh)
            raise
        finally:
            self._replicas.project = project

    def _count(self, old: Config, new: Config) -> None:
        """Bring the number of replicas to what the file says, where it says something else than before."""
        for name in _recounted(old, new) & new.services.keys():
            rules = new.services[name].replicas
            self._replicas.scale(name, min(max(self._replicas.count(name), rules.min), rules.most))

    def _let_go(self, gone: set[str]) -> None:
        for service in gone:
            self._replicas.dismiss(service)


def _recounted(old: Config, new: Config) -> set[str]:
    """Return the services that are to have another number of replicas, or none any more."""
    return {
        name
        for name, before in old.services.items()
        if name not in new.services or before.replicas != new.services[name].replicas
    }
