"""The composition root: creates the parts of a supervisor and connects them."""

import uuid
from collections.abc import Callable, Mapping

from escala.control.event_bus import EventBus
from escala.events import Event
from escala.gateway.haproxy.configuration import Configuration, Plan
from escala.gateway.haproxy.membership import Membership
from escala.gateway.haproxy.revocation_maps import Revocations
from escala.gateway.haproxy.runtime_api import RuntimeApi
from escala.processes.logs import Logs
from escala.processes.orphans import Orphans
from escala.processes.records import Records
from escala.processes.registry import Registry
from escala.project.lock import Lock
from escala.project.project import Project
from escala.supervisor.changes.apply import ApplyOperation
from escala.supervisor.changes.canary_watch import CanaryWatch
from escala.supervisor.changes.operation_registry import OperationRegistry
from escala.supervisor.changes.rollout_registry import RolloutRegistry
from escala.supervisor.children import Children
from escala.supervisor.engines import Engines
from escala.supervisor.gateway.certificate_watch import CertificateWatch
from escala.supervisor.gateway.process import GatewayLifecycle
from escala.supervisor.gateway.revocation_sync import RevocationSync
from escala.supervisor.operations import Operations
from escala.supervisor.phase import Phase
from escala.supervisor.replicas.autoscaler import Autoscaler
from escala.supervisor.replicas.backlog import Backlog
from escala.supervisor.replicas.health import HealthWatch
from escala.supervisor.replicas.job_rescue import JobRescue
from escala.supervisor.replicas.locks import ServiceLocks
from escala.supervisor.replicas.recycler import Recycler
from escala.supervisor.replicas.spec import environment_for
from escala.supervisor.replicas.table import ReplicaTable
from escala.supervisor.status import StatusReport


class Composition:
    """Creates all parts, but starts none of them. `narrate` turns events into text for people."""

    def __init__(self, project: Project, logs: Logs, narrate: Callable[[Event], None]) -> None:
        self.logs = logs
        self.events = EventBus(narrate)
        emit = self.events.emit
        self.phase = Phase(project.name)
        self.lock = Lock(project)
        self.records = Records(emit)
        self.registry = Registry(project.layout.processes, self.records)
        self.orphans = Orphans(emit)
        self.job_rescue = JobRescue(lambda: self.engines.postgres_url, lambda: self.node, self._is_worker, emit)
        self.children = Children(logs, self.registry, self._clean_up, emit)
        self.engines = Engines(project, self.children, emit)
        self.node = uuid.uuid4().hex
        """Names this start of the supervisor, in the environment of its replicas."""

        self.revocations = Revocations()
        self.runtime = RuntimeApi(project.layout.run / "master.sock")
        self.configuration = Configuration(project.root, project.layout, self.revocations, self.runtime)
        self.membership = Membership(self.configuration, self.runtime, lambda: self.replicas.servers(), emit)
        self.gateway = GatewayLifecycle(self.configuration, self.membership, self.runtime, self.plan)
        self.revocation_sync = RevocationSync(
            self.revocations,
            url=lambda: self.engines.postgres_url,
            enforce=self.membership.revoke,
            emit=emit,
        )

        self.locks = ServiceLocks()
        self.replicas = ReplicaTable(
            project, self.children.make, environment=self.environment, members=self.membership, emit=emit
        )
        self.certificates = CertificateWatch(lambda: self.replicas.project)
        self.rollouts = RolloutRegistry(self.replicas, self.locks, CanaryWatch(self.membership), emit)
        self.backlog = Backlog(lambda: self.engines.postgres_url)
        self.autoscaler = Autoscaler(self.replicas, self.membership, self.locks, self.backlog, emit)
        self.health = HealthWatch(self.replicas, self.membership, emit)
        self.recycler = Recycler(self.replicas, self.membership, self.locks, self.rollouts.recycle, emit)

        apply = ApplyOperation(
            self.configuration,
            self.membership,
            self.replicas,
            self.rollouts,
            self.locks,
            emit,
            lambda: self.engines.connections,
        )
        self.operation_registry = OperationRegistry(self.locks, emit)
        self.operations = Operations(
            phase=self.phase,
            registry=self.operation_registry,
            replicas=self.replicas,
            membership=self.membership,
            rollouts=self.rollouts,
            locks=self.locks,
            autoscaler=self.autoscaler,
            revocations=self.revocation_sync,
            apply=apply,
            plan=self.plan,
            emit=emit,
        )
        self.status = StatusReport(
            phase=self.phase,
            logs=logs,
            records=self.records,
            children=self.children,
            engines=self.engines,
            replicas=self.replicas,
            membership=self.membership,
            rollouts=self.rollouts,
            autoscaler=self.autoscaler,
            backlog=self.backlog,
        )

    def _clean_up(self, name: str, pid: int) -> None:
        """Take care of what a process left behind. It finds nothing for processes that are not replicas."""
        self.orphans.end_of(name, pid)
        self.job_rescue.end_of(name, pid)

    def _is_worker(self, name: str) -> bool:
        service = self.replicas.services.get(name.rpartition("/")[0])
        return service is not None and service.kind == "tasks"

    def plan(self) -> Plan:
        """Return the gateway's desired state at this moment."""
        return Plan(self.replicas.project.topology, self.replicas.servers())

    def environment(self, project: Project, service: str = "", replica: str = "") -> Mapping[str, str]:
        """Return the environment variables of a replica, or of the prepare command."""
        return environment_for(
            project,
            postgres=self.engines.postgres_url,
            valkey=self.engines.valkey_url,
            node=self.node,
            service=service,
            replica=replica,
        )
