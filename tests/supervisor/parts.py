"""Parts of a supervisor with real processes, and a gateway that only notes what it is told."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from escala.events import Event
from escala.gateway.haproxy.traffic import Traffic
from escala.gateway.topology.servers import Server
from escala.processes.child import Child
from escala.processes.lifecycle import Lifecycle
from escala.processes.records import Records
from escala.processes.registry import Registry
from escala.project.layout import Layout
from escala.project.project import Project
from escala.supervisor.replicas.locks import ServiceLocks
from escala.supervisor.replicas.table import ReplicaTable
from tests.support import minimal_config

SERVE = """
import os, socket, sys
server = socket.socket(socket.AF_UNIX); server.bind(os.environ["SOCKET"]); server.listen()
while True: server.accept()
"""
BREAK = "raise SystemExit('broken')"


def command(code: str = SERVE, where: str = "$SOCKET") -> str:
    """Return the command of a server that takes connections on its socket, or does something else."""
    packed = code.encode().hex()  # a command is one line
    return f"{sys.executable} -S -c 'exec(bytes.fromhex(\"{packed}\"))' {where}"


class Members:
    """Stands where the membership stands, and notes what it is told."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, int], Server] = {}
        self.history: list[str] = []
        self.counted: list[Traffic] = []

    async def update(self, service: str, server: Server) -> None:
        self.known[service, server.number] = server
        self.history.append(f"{service}/{server.number} {server.state}")

    async def remove(self, service: str, number: int) -> None:
        self.known.pop((service, number), None)
        self.history.append(f"{service}/{number} removed")

    async def until_idle(self, service: str, number: int, seconds: float) -> None:
        self.history.append(f"{service}/{number} idle")

    async def traffic(self) -> list[Traffic]:
        return self.counted

    def serve(self, service: str, server: str, requests: int, *, inflight: int = 0, queued: int = 0) -> None:
        """Let the gateway have counted so much."""
        self.counted = [each for each in self.counted if (each.service, each.server) != (service, server)]
        self.counted.append(Traffic(service, server, True, inflight, queued, 0, requests, 0, requests, False, 5))


class Parts:
    def __init__(self, project: Project, members: Any = None) -> None:
        self.project = project
        self.events: list[Event] = []
        self.members = members or Members()
        self.locks = ServiceLocks()
        self.registry = Registry(project.layout.processes, Records(self.events.append))
        self.replicas = ReplicaTable(
            project,
            self._make_child,
            environment=lambda release, service, replica: {},
            members=self.members,
            emit=self.events.append,
        )

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def serving(self, service: str) -> list[int]:
        return [replica.number for replica in self.replicas.of(service) if replica.serves]

    def _make_child(self, name: str, lifecycle: Lifecycle) -> Child:
        return Child(name, lifecycle, emit=self.events.append, output=lambda lines: None, registry=self.registry)


def project_in(folder: Path, **services: Any) -> Project:
    """Return a project of commands; each is a server on a socket unless its table says otherwise."""

    def table_of(table: dict[str, Any]) -> dict[str, Any]:
        return {**fast, **table} if "tasks" in table else {"command": command(), **fast, **table}

    fast = {"stop_timeout": "1s", "health": "tcp", "start_timeout": "10s", "rollout": {"settle": "50ms"}}
    tables = {name: table_of(table) for name, table in services.items()}
    project = Project(folder / "escala.toml", minimal_config(services=tables), Layout(folder / "s"))
    project.layout.create()
    return project


@asynccontextmanager
async def parts_of(project: Project, members: Any = None) -> AsyncIterator[Parts]:
    """Lend the parts of a project without its built-in service; their processes end with the block."""
    parts = Parts(project, members)
    try:
        for name, service in project.config.services.items():
            parts.replicas.adopt(name, project)
            parts.replicas.scale(name, service.replicas.min)
        for name in project.config.services:
            for replica in parts.replicas.of(name):
                await replica.child.wait_tried()
        yield parts
    finally:
        await parts.replicas.stop_leaving()
        for child in parts.replicas.children.values():
            await child.stop()
