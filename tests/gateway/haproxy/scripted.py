"""A HAProxy that follows a script: the master's socket, with answers and delays that a test chooses."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from escala.config import UnixSocket
from escala.events import Event
from escala.gateway.haproxy.configuration import Bindings, Configuration, Plan
from escala.gateway.haproxy.membership import Membership
from escala.gateway.haproxy.revocation_maps import Revocations
from escala.gateway.haproxy.runtime_api import RuntimeApi
from escala.gateway.topology.servers import Server
from escala.gateway.topology.topology import Topology
from escala.processes.ports import free_port
from escala.project.layout import Layout

HEAD = (
    "# pxname,svname,status,scur,qcur,rate,stot,hrsp_5xx,econ,eresp,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_other,"
    "slim,ttime,lastchg"
)


def row(backend: str, server: str, *, requests: int = 0, errors: int = 0, inflight: int = 0, queued: int = 0) -> str:
    """Return a line of `show stat`."""
    return f"{backend},{server},UP,{inflight},{queued},0,{requests},{errors},0,0,0,{requests - errors},0,0,0,0,5,1"


class ScriptedHAProxy:
    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.commands: list[str] = []
        """What was asked, without the worker that it was for."""
        self.workers = [100]
        """Process ids, the present one first."""
        self.stats: dict[int, list[str]] = {}
        """By worker, the lines of `show stat`."""
        self.answers: dict[str, str] = {}
        """By the beginning of a command, what is answered instead of the usual."""
        self.gates: dict[str, asyncio.Event] = {}
        """By the beginning of a command, what its answer waits for."""
        self.on_reload: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ScriptedHAProxy"]:
        server = await asyncio.start_unix_server(self._serve, self.socket)
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()
            self.socket.unlink(missing_ok=True)

    def asked(self, beginning: str) -> list[str]:
        return [command for command in self.commands if command.startswith(beginning)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = (await reader.read()).decode().strip()
        worker, command = self.workers[0], text
        if text.startswith("@!"):
            number, _, command = text.removeprefix("@!").partition(" ")
            worker = int(number)
        if command not in {"show proc", "show stat"}:
            self.commands.append(command)
        for beginning, gate in self.gates.items():
            if command.startswith(beginning):
                await gate.wait()
        writer.write(self._answer(worker, command).encode())
        writer.close()

    def _answer(self, worker: int, command: str) -> str:
        for beginning, answer in self.answers.items():
            if command.startswith(beginning):
                return answer
        if command == "show proc":
            old = "".join(f"{pid} worker\n" for pid in self.workers[1:])
            return f"# workers\n{self.workers[0]} worker\n# old workers\n{old}"
        if worker not in self.workers:
            return "Can't find the target PID"
        if command == "reload":
            self.on_reload()
            return "Success=1\n--\n"
        if command == "show stat":
            return "\n".join([HEAD, *self.stats.get(worker, [])]) + "\n"
        if command.startswith("add server"):
            return "New server registered."
        if command.startswith("del server"):
            return "Server deleted."
        if " addr " in command:
            return "no need to change the addr"
        return ""


class ScriptedGateway:
    """A configuration and its membership, before a scripted HAProxy."""

    def __init__(self, layout: Layout, topology: Topology) -> None:
        self.layout = layout
        layout.create()
        runtime = RuntimeApi(self.layout.run / "master.sock")
        self.scripted = ScriptedHAProxy(runtime.master)
        self.topology = topology
        self.servers: dict[str, list[Server]] = {"web": [], "platform": []}
        self.events: list[Event] = []
        self.configuration = Configuration(layout.state, layout, Revocations(), runtime)
        self.configuration.listen(Bindings(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"), None)
        self.membership = Membership(self.configuration, runtime, self.all_servers, self.events.append)

    def all_servers(self) -> Mapping[str, Sequence[Server]]:
        return self.servers

    def server(self, number: int, state: str = "ready") -> Server:
        socket = UnixSocket(str(self.layout.replica_socket("web", number)))
        return Server(number, socket, state)  # type: ignore[arg-type]

    def plan(self, topology: Topology | None = None) -> Plan:
        return Plan(topology or self.topology, {name: list(each) for name, each in self.servers.items()})

    @property
    def text(self) -> str:
        return (self.layout.gateway / "haproxy.cfg").read_text()

    @property
    def folders(self) -> list[str]:
        return sorted(path.name for path in self.layout.gateway.iterdir() if path.is_dir())
