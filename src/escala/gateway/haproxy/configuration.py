"""The gateway: HAProxy with a configuration of ours."""

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from escala.auth.key_store import KeyStore
from escala.config import Address, Config, Endpoint, ServiceSettings
from escala.engines import haproxy
from escala.gateway.haproxy import certificates
from escala.gateway.haproxy.diagnostics import explained
from escala.gateway.haproxy.revocation_maps import Revocations
from escala.gateway.haproxy.runtime_api import ReloadRefused, Runtime
from escala.gateway.render.backend import inflight, server_options
from escala.gateway.render.context import Key, RenderContext
from escala.gateway.render.render import render
from escala.gateway.topology.routes import Lane, lanes, lanes_map, placed_routes, routes_map
from escala.gateway.topology.servers import Backend, Server
from escala.processes.process import ProcessSpec
from escala.project.atomic_write import write_atomically
from escala.project.layout import Layout

HOLD = Path(__file__).with_name("hold.lua")

STOP_SECONDS = 10.0
"""How long requests in flight may take to end when the gateway stops."""


@dataclass(frozen=True)
class Listeners:
    """What HAProxy listens on, as it is written in its configuration: inherited sockets ("fd@N") or addresses."""

    bind: str
    admin: str
    redirect: str | None = None
    descriptors: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What the gateway is to be: a configuration, all services (the built-in one too), the replicas of the moment."""

    config: Config
    services: Mapping[str, ServiceSettings]
    backends: Sequence[Backend]


@dataclass(frozen=True)
class _Laid:
    """The configuration that HAProxy has."""

    number: int
    """Of its folder."""
    lanes: Mapping[str, Sequence[Lane]]
    """By service."""
    known: dict[tuple[str, int], Endpoint]
    """Where replicas listen that it has heard of, in its text or since."""


class Gateway:
    """Writes, checks, describes and changes the process; the supervisor runs it.

    `plan` is asked at every start and reload, so that a gateway that died comes back with the replicas of that moment.
    Each configuration has a folder of its own for the files that it names, so that a refused one has touched nothing.
    """

    def __init__(self, root: Path, layout: Layout, plan: Callable[[], Plan], revocations: Revocations) -> None:
        self._root = root
        self._layout = layout
        self._plan = plan
        self._revocations = revocations
        self._binary: Path | None = None
        self._laid = _Laid(0, {}, {})
        self._listeners: Listeners | None = None
        self._log: int | None = None
        self.runtime = Runtime(layout.run / "master.sock")

    def find_binary(self) -> Path:
        """Find HAProxy, once; raise EngineMissing where there is none."""
        if self._binary is None:
            self._binary = haproxy.find(self._plan().config.engines.haproxy.binary)
        return self._binary

    def listen(self, listeners: Listeners, log: int | None) -> None:
        """Say before it is started what HAProxy shall listen on, and the descriptor of the pipe for its access log."""
        self._listeners = listeners
        self._log = log

    @property
    def reachable(self) -> bool:
        """Whether the socket is there by which HAProxy is told of changes."""
        return self.runtime.master.exists()

    def require_certificates(self) -> None:
        """Raise EngineFailed where the certificates are not there, or HAProxy does not take them. Blocking."""
        certificates.require(self._root, self._plan().config, self.find_binary())

    def prepare(self) -> ProcessSpec:
        """Write the configuration, let HAProxy check it, and return what to run. Blocking."""
        assert self._listeners is not None
        self._write(self._plan())
        return haproxy.process(
            self.find_binary(),
            self._file,
            self._layout.run / "master.sock",
            self._descriptors,
            STOP_SECONDS + 1,
        )

    def check(self, plan: Plan) -> None:
        """Raise EngineFailed, with HAProxy's words, where it would refuse a plan. Changes nothing that is in use."""
        folder = self._layout.gateway / "check"
        try:
            self._check(self._lay_out(plan, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def reload(self) -> None:
        """Let a new worker take over with the plan of this moment; raise where it cannot, with all as it was."""
        before, laid = self._file.read_text(encoding="utf-8"), self._laid
        await asyncio.to_thread(self._write, self._plan())
        try:
            await self.runtime.reload()
        except (ReloadRefused, OSError):
            write_atomically(self._file, before)
            self._laid = laid
            raise
        self._tidy()

    async def probe(self) -> None:
        """Return when the gateway takes connections; raise OSError while it does not."""
        await self.runtime.command("show info")

    async def tell(self, service: str, server: Server) -> None:
        """Let the balancer know how a replica is now; of a service that it does not have yet, a reload will tell."""
        if (service, server.number) in self._laid.known or server.state == "ready":
            for lane in self._laid.lanes.get(service, ()):
                await self.runtime.apply(lane.name, server, inflight(server, lane.balance))

    async def add(self, service: str, server: Server) -> None:
        """Make a replica known to the balancer, unless it is."""
        if service not in self._laid.lanes:
            return
        before = self._laid.known.get((service, server.number))
        if before is not None:
            if before == server.endpoint or (isinstance(before, Address) and isinstance(server.endpoint, Address)):
                return
            await self.remove(service, server.number)  # HAProxy cannot move one from a port to a socket, or back
        for lane in self._laid.lanes[service]:
            options = server_options(server, self._plan().services[service], lane.balance)
            await self.runtime.add(lane.name, server, options)
        self._laid.known[service, server.number] = server.endpoint

    async def remove(self, service: str, number: int) -> None:
        """Let the balancer forget a replica that has ended."""
        if (service, number) in self._laid.known:
            for lane in self._laid.lanes[service]:
                await self.runtime.remove(lane.name, str(number))
            del self._laid.known[service, number]

    async def enforce_revocations(self) -> None:
        """Refuse from now on what is revoked: the maps first, then the remembered tokens."""
        tokens, users = self._revocations.maps()
        await self.runtime.set_map(self._revoked_tokens.name, tokens)
        await self.runtime.set_map(self._revoked_users.name, users)
        await self.runtime.forget_tokens()

    @property
    def _descriptors(self) -> tuple[int, ...]:
        assert self._listeners is not None
        return (*self._listeners.descriptors, *([self._log] if self._log is not None else []))

    @property
    def _file(self) -> Path:
        return self._layout.gateway / "haproxy.cfg"

    # The same for all configurations: workers that an earlier reload left are told of revocations by these names too.

    @property
    def _revoked_tokens(self) -> Path:
        return self._layout.gateway / "revoked-tokens.map"

    @property
    def _revoked_users(self) -> Path:
        return self._layout.gateway / "revoked-users.map"

    def _write(self, plan: Plan) -> None:
        """Lay out a configuration beside the present one, let HAProxy check it, and put it in place."""
        number = self._laid.number + 1
        folder = self._layout.gateway / str(number)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            candidate = self._lay_out(plan, folder)
            self._check(candidate)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        candidate.replace(self._file)
        known = {(b.service, server.number): server.endpoint for b in plan.backends for server in b.servers}
        routes = placed_routes(plan.config)
        self._laid = _Laid(number, {b.service: lanes(plan.config, routes, b.service) for b in plan.backends}, known)

    def _lay_out(self, plan: Plan, folder: Path) -> Path:
        """Write a configuration and the files that it names into `folder`; return its path."""
        folder.mkdir(mode=0o700)
        routes = placed_routes(plan.config)
        tokens, users = self._revocations.maps()
        write_atomically(folder / "routes.map", routes_map(routes))
        write_atomically(folder / "lanes.map", lanes_map(plan.config, routes))
        write_atomically(self._revoked_tokens, _lines(tokens))
        write_atomically(self._revoked_users, _lines(users))
        file = folder / "haproxy.cfg"
        write_atomically(file, render(plan.config, plan.services, plan.backends, self._render_context(plan, folder)))
        return file

    def _check(self, file: Path) -> None:
        assert self._listeners is not None
        try:
            haproxy.check(self.find_binary(), file, self._layout.gateway, self._descriptors)
        except haproxy.ConfigurationRefused as refused:
            text = file.read_text(encoding="utf-8")
            raise haproxy.ConfigurationRefused([explained(words, text) for words in refused.alerts]) from None

    def _render_context(self, plan: Plan, folder: Path) -> RenderContext:
        assert self._listeners is not None
        run = self._layout.run
        tls = certificates.find(self._root, plan.config)
        return RenderContext(
            bind=self._listeners.bind,
            redirect=self._listeners.redirect,
            admin=self._listeners.admin,
            socket=str(run / "haproxy.sock"),
            unavailable=str(run / "unavailable.sock"),
            access_log=f"fd@{self._log}" if self._log is not None else None,
            route_metrics=str(run / "metrics.sock"),
            hold=str(HOLD),
            routes=f"{folder.name}/routes.map",
            lanes=f"{folder.name}/lanes.map",
            revoked_tokens=self._revoked_tokens.name,
            revoked_users=self._revoked_users.name,
            keys=self._keys(folder),
            certificates=str(tls) if tls else None,
        )

    def _keys(self, folder: Path) -> tuple[Key, ...]:
        keys = []
        for number, public in enumerate(KeyStore(self._layout).public_keys()):
            file = folder / f"{number}.pem"
            write_atomically(file, public.pem)
            keys.append(Key(public.kid, public.algorithm, f"{folder.name}/{file.name}"))
        return tuple(keys)

    def _tidy(self) -> None:
        """Remove the files of configurations that no worker reads any more: they are read once, at the start."""
        for folder in self._layout.gateway.iterdir():
            if folder.is_dir() and folder.name != str(self._laid.number):
                shutil.rmtree(folder, ignore_errors=True)


def _lines(entries: Mapping[str, str]) -> str:
    return "".join(f"{key} {value}\n" for key, value in entries.items())
