"""`escala apply`: change the running project into the one in the file, without dropping a request.

The order makes it safe:

1. Read and validate the file.
2. Let HAProxy check the new configuration.
3. Start the new services and wait until they are ready.
4. Let HAProxy switch to the new configuration.
5. Commit: remove what is no longer wanted, and roll out the services whose replicas would now be different.

Nothing of the running project changes before the switch. If a step before it fails, there is nothing to undo.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from escala.config.difference import Change, difference, without_restart
from escala.control.messages import Applied
from escala.events import ConfigurationApplied, Emit
from escala.gateway.haproxy.configuration import Configuration, Plan
from escala.gateway.haproxy.membership import Membership
from escala.project.project import Project
from escala.supervisor.changes.operation_registry import Operation
from escala.supervisor.changes.rollout_registry import RolloutRegistry
from escala.supervisor.replicas.endpoints import Endpoints
from escala.supervisor.replicas.locks import PROJECT, ServiceLocks
from escala.supervisor.replicas.table import ReplicaTable


@dataclass(frozen=True)
class Proposal:
    """The project that the file describes, compared with the running project."""

    before: Project
    wanted: Project
    """The project from the file. Settings that need a restart keep the values of the running project."""
    changes: list[Change]
    rolling: list[str]
    """Services whose replicas would be different."""
    warnings: list[str]

    @property
    def applied(self) -> Applied:
        return Applied(self.changes, self.rolling, self.warnings)

    @property
    def fresh(self) -> set[str]:
        return self.wanted.config.services.keys() - self.before.config.services.keys()

    @property
    def gone(self) -> set[str]:
        return self.before.config.services.keys() - self.wanted.config.services.keys()

    @property
    def recounted(self) -> set[str]:
        """Services whose settings for the number of replicas have changed."""
        before, wanted = self.before.config.services, self.wanted.config.services
        return {name for name in before.keys() & wanted.keys() if before[name].replicas != wanted[name].replicas}

    @property
    def touched(self) -> set[str]:
        """Services that anything changes for, except for the gateway's rules."""
        keys = [change.key.split(".") for change in self.changes if not change.later]
        named = {key[1] for key in keys if key[0] == "services"}
        return {*self.rolling, *self.fresh, *self.gone, *(named & self.wanted.topology.services.keys())}


class ApplyOperation:
    def __init__(
        self,
        configuration: Configuration,
        membership: Membership,
        replicas: ReplicaTable,
        rollouts: RolloutRegistry,
        locks: ServiceLocks,
        emit: Emit,
        connections: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Take the parts; `connections` returns how many connections PostgreSQL accepts, if that is known."""
        self._configuration = configuration
        self._membership = membership
        self._replicas = replicas
        self._rollouts = rollouts
        self._locks = locks
        self._emit = emit
        self._connections = connections

    async def read(self) -> Proposal:
        """Read the project's file again, and compare it with what runs. Raises ConfigError."""
        before = self._replicas.project
        opened = await asyncio.to_thread(Project.open, before.file, settings=before.settings, single=before.single)
        config = without_restart(before.config, opened.config)
        wanted = replace(opened, config=config, layout=before.layout)
        rolling = [name for name in wanted.topology.services if self._replicas.would_differ(name, wanted)]
        changes = difference(before.config, opened.config)
        return Proposal(before, wanted, changes, rolling, self._warnings(wanted) if changes else [])

    def _warnings(self, wanted: Project) -> list[str]:
        accepted, demand = self._connections(), wanted.config.database_connections
        if accepted is None or demand <= accepted:
            return []
        return [
            f"all replicas together may open {demand} connections to PostgreSQL, which accepts {accepted} until the "
            "project is restarted"
        ]

    async def run(self, operation: Operation) -> None:
        """Apply the file, and roll out the services whose replicas it changes."""
        by = f"apply (operation {operation.id})"
        with self._locks.hold([PROJECT], by), ExitStack() as locked:
            operation.report("reading the file")
            proposal = await self.read()
            operation.services = sorted(proposal.touched)
            locked.enter_context(self._locks.hold(proposal.touched, by))
            await self._switch(proposal, operation)
            operation.applied = proposal.applied
            operation.report("the gateway has switched to the new configuration")
            if proposal.changes:
                self._emit(ConfigurationApplied(len(proposal.changes)))
            await self._rollouts.roll_all(dict.fromkeys(proposal.rolling, proposal.wanted), operation.report)

    async def _switch(self, proposal: Proposal, operation: Operation) -> None:
        wanted = proposal.wanted
        # Not ==: it takes a value that is set for equal to the same value by default.
        if not difference(proposal.before.config, wanted.config):
            return
        Endpoints(wanted).require_sockets()
        operation.report("checking the new configuration")
        await self._configuration.check(self._plan(wanted))
        try:
            operation.report("starting new services")
            await self._start(wanted, proposal.fresh)
            operation.report("switching the gateway to the new configuration")
            await self._membership.reload(lambda: self._plan(wanted), lambda: self._commit(proposal))
        except BaseException:
            if self._replicas.project is not wanted:  # after the commit the new services have requests
                for name in proposal.fresh:
                    self._replicas.dismiss(name)
            raise
        for name in proposal.recounted:
            rules = wanted.config.services[name].replicas
            count = len(self._replicas.staying(name))
            self._replicas.scale(name, min(max(count, rules.min), rules.most))
        for name in proposal.gone:
            self._replicas.dismiss(name)

    def _plan(self, project: Project) -> Plan:
        return Plan(project.topology, self._replicas.servers(project.topology))

    async def _start(self, wanted: Project, fresh: Iterable[str]) -> None:
        """Start the new services next to the running ones, and wait until each has a replica that is ready."""
        asked = [
            self._replicas.add(name, wanted) for name in fresh for _ in range(wanted.config.services[name].replicas.min)
        ]
        await asyncio.gather(*(self._replicas.wait_ready(name) for name in {replica.service for replica in asked}))

    def _commit(self, proposal: Proposal) -> None:
        """Make the wanted project the running one. Replicas that are still to be rolled out stay unchanged for now."""
        for name in proposal.rolling:
            self._replicas.adopt(name, self._replicas.release_of(name))
        self._replicas.commit(proposal.wanted)
        for name in proposal.wanted.topology.services.keys() - set(proposal.rolling):
            self._replicas.adopt(name, proposal.wanted)  # the same command, but timeouts may differ
