"""`escala apply`: from the project that runs to the one in the file, without a dropped request.

The order makes it safe. Read and validate, let HAProxy check, start what is new and wait until it is ready, let HAProxy
switch, and only then commit: let go of what is no longer wanted, and roll out the services whose replicas would be
others now. Nothing of the running project changes before the switch, so a failure has nothing to undo.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from escala.config.difference import Change, difference, without_restart
from escala.control.messages import Applied
from escala.errors import OperationRefused
from escala.events import ConfigurationApplied, Emit
from escala.gateway.haproxy.configuration import Configuration, Plan
from escala.gateway.haproxy.membership import Membership
from escala.project.project import Project
from escala.supervisor.changes.operation import Operation
from escala.supervisor.changes.rollout_registry import RolloutRegistry
from escala.supervisor.replicas.endpoints import Endpoints
from escala.supervisor.replicas.locks import ServiceLocks
from escala.supervisor.replicas.table import ReplicaTable


@dataclass(frozen=True)
class Proposal:
    """What the file says, beside the project that runs."""

    before: Project
    wanted: Project
    """With the settings that only a restart takes over as they are in the running project."""
    changes: list[Change]
    rolling: list[str]
    """Services whose replicas would be others."""

    @property
    def applied(self) -> Applied:
        return Applied(self.changes, self.rolling)

    @property
    def fresh(self) -> set[str]:
        return self.wanted.config.services.keys() - self.before.config.services.keys()

    @property
    def gone(self) -> set[str]:
        return self.before.config.services.keys() - self.wanted.config.services.keys()

    @property
    def recounted(self) -> set[str]:
        """Services that are to have another number of replicas."""
        before, wanted = self.before.config.services, self.wanted.config.services
        return {name for name in before.keys() & wanted.keys() if before[name].replicas != wanted[name].replicas}

    @property
    def touched(self) -> set[str]:
        return {*self.rolling, *self.fresh, *self.gone, *self.recounted}


class ApplyOperation:
    def __init__(
        self,
        configuration: Configuration,
        membership: Membership,
        replicas: ReplicaTable,
        rollouts: RolloutRegistry,
        locks: ServiceLocks,
        emit: Emit,
    ) -> None:
        self._configuration = configuration
        self._membership = membership
        self._replicas = replicas
        self._rollouts = rollouts
        self._locks = locks
        self._emit = emit
        self._applying = False

    async def read(self) -> Proposal:
        """Read the project's file again, and compare it with what runs. Raises ConfigError."""
        before = self._replicas.project
        opened = await asyncio.to_thread(Project.open, before.file, settings=before.settings, single=before.single)
        config = without_restart(before.config, opened.config)
        wanted = replace(opened, config=config, layout=before.layout)
        rolling = [name for name in config.services if self._replicas.would_differ(name, wanted)]
        return Proposal(before, wanted, difference(before.config, opened.config), rolling)

    async def run(self, operation: Operation) -> None:
        """Take over what the file says, and roll out what that changes in replicas."""
        with self._alone(), ExitStack() as locked:
            operation.report("reading the file")
            proposal = await self.read()
            operation.services = sorted(proposal.touched)
            locked.enter_context(self._locks.hold(proposal.touched, f"apply (operation {operation.id})"))
            await self._switch(proposal, operation)
            operation.applied = proposal.applied
            operation.report("the gateway has switched")
            if proposal.changes:
                self._emit(ConfigurationApplied(len(proposal.changes)))
            await self._rollouts.roll_all(dict.fromkeys(proposal.rolling, proposal.wanted), operation.report)

    async def _switch(self, proposal: Proposal, operation: Operation) -> None:
        wanted = proposal.wanted
        if wanted.config == proposal.before.config:
            return
        Endpoints(wanted).require_sockets()
        operation.report("checking")
        await self._configuration.check(self._plan(wanted))
        with self._started(proposal.fresh):
            operation.report("starting new services")
            await self._start(wanted, proposal.fresh)
            operation.report("switching")
            await self._membership.reload(lambda: self._plan(wanted), lambda: self._commit(proposal))
        for name in proposal.recounted:
            rules = wanted.config.services[name].replicas
            count = len(self._replicas.staying(name))
            self._replicas.scale(name, min(max(count, rules.min), rules.most))
        for name in proposal.gone:
            self._replicas.dismiss(name)

    def _plan(self, project: Project) -> Plan:
        return Plan(project.topology, self._replicas.servers(project.topology))

    async def _start(self, wanted: Project, fresh: Iterable[str]) -> None:
        """Start the services that are new, beside those that run, and wait until each has a replica that is ready."""
        asked = [
            self._replicas.add(name, wanted) for name in fresh for _ in range(wanted.config.services[name].replicas.min)
        ]
        await asyncio.gather(*(self._replicas.wait_ready(name) for name in {replica.service for replica in asked}))

    def _commit(self, proposal: Proposal) -> None:
        """Let the wanted project be the one that runs; replicas that are to be rolled out stay as they are for now."""
        for name in proposal.rolling:
            self._replicas.adopt(name, self._replicas.release_of(name))
        self._replicas.commit(proposal.wanted)
        for name in proposal.wanted.topology.services.keys() - set(proposal.rolling):
            self._replicas.adopt(name, proposal.wanted)  # the same process, but not for how long it may take

    @contextmanager
    def _started(self, fresh: Iterable[str]) -> Iterator[None]:
        """Take services away again that were started in vain."""
        try:
            yield
        except BaseException:
            for name in fresh:
                self._replicas.dismiss(name)
            raise

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._applying:
            raise OperationRefused("another apply is under way; try again when it is over")
        self._applying = True
        try:
            yield
        finally:
            self._applying = False
