"""HAProxy's configuration on disk: rendered, checked by HAProxy, put in place, and restored if a reload fails."""

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from escala.auth.key_store import KeyStore
from escala.config import Endpoint
from escala.engines import haproxy
from escala.errors import ConfigurationRefused, EngineFailed, EscalaError
from escala.gateway.haproxy import certificates
from escala.gateway.haproxy.diagnostics import explained
from escala.gateway.haproxy.revocation_maps import Revocations
from escala.gateway.haproxy.runtime_api import RuntimeApi
from escala.gateway.render.context import Key, RenderContext
from escala.gateway.render.maps import backends_map, routes_map
from escala.gateway.render.render import render
from escala.gateway.topology.backends import Backend
from escala.gateway.topology.servers import Server
from escala.gateway.topology.topology import Topology
from escala.processes.process import ProcessSpec
from escala.project.atomic_write import write_atomically
from escala.project.layout import Layout

HOLD = Path(__file__).with_name("hold.lua")

STOP_SECONDS = 10.0
"""How long in-flight requests may take to finish when the gateway stops."""


@dataclass(frozen=True)
class Bindings:
    """The listeners of HAProxy, as written in its configuration: inherited sockets ("fd@N") or addresses."""

    bind: str
    admin: str
    redirect: str | None = None
    descriptors: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The desired state of the gateway."""

    topology: Topology
    servers: Mapping[str, Sequence[Server]]
    """The current replicas of each service."""


@dataclass(frozen=True)
class Deployed:
    """The configuration that HAProxy currently runs."""

    number: int
    """The number of its folder."""
    topology: Topology | None
    """None before the first configuration is written."""
    known: dict[tuple[str, int], Endpoint]
    """The endpoint of each replica that HAProxy knows, by service and number.

    A replica is known if the configuration contains it, or if it was added through the Runtime API since then.
    """

    def backends(self, service: str) -> tuple[Backend, ...]:
        """Return the backends of a service, or an empty tuple if this configuration does not have the service."""
        return self.topology.backends.get(service, ()) if self.topology else ()


class Configuration:
    """Writes HAProxy's configuration, and knows which one is deployed.

    Each configuration keeps the files it refers to in its own folder. So a refused one does not affect the running one.

    One lock guards all writes, because HAProxy may die in the middle of a reload. `prepare` then runs again.
    """

    def __init__(self, root: Path, layout: Layout, revocations: Revocations, runtime: RuntimeApi) -> None:
        self._root = root
        self._layout = layout
        self._revocations = revocations
        self._runtime = runtime
        self._binary: Path | None = None
        self._bindings: Bindings | None = None
        self._log: int | None = None
        self._lock = asyncio.Lock()
        self.deployed = Deployed(0, None, {})

    def find_binary(self, setting: Path | None) -> Path:
        """Return the HAProxy binary, searching only once; raise EngineMissing if there is none."""
        if self._binary is None:
            self._binary = haproxy.find(setting)
        return self._binary

    def listen(self, bindings: Bindings, log: int | None) -> None:
        """Set HAProxy's listeners and the descriptor of its access log pipe. Call this before the first start."""
        self._bindings = bindings
        self._log = log

    def require_certificates(self, topology: Topology) -> None:
        """Raise EngineFailed if certificates are missing or HAProxy refuses them. Blocking."""
        binary = self.find_binary(topology.config.engines.haproxy.binary)
        certificates.require(self._root, topology.config, binary)

    async def prepare(self, current: Callable[[], Plan]) -> ProcessSpec:
        """Write the configuration, let HAProxy check it, and return the process to start."""
        async with self._lock:
            plan = current()
            self.deployed = await asyncio.to_thread(self._write, plan)
        return haproxy.process(
            self.find_binary(plan.topology.config.engines.haproxy.binary),
            self._file,
            self._runtime.master,
            self._descriptors,
            STOP_SECONDS + 1,
        )

    async def check(self, plan: Plan) -> None:
        """Raise EngineFailed with HAProxy's message if it would refuse a plan. Nothing in use is changed."""
        async with self._lock:
            try:
                await asyncio.to_thread(self._try, plan)
            except OSError as error:
                raise EngineFailed("HAProxy", f"its configuration cannot be written: {error}") from error

    async def reload(self, plan: Plan, commit: Callable[[], None]) -> None:
        """Let a new worker take over with a plan; if it cannot, raise and leave everything unchanged.

        `commit` is called as soon as the plan is in effect. If HAProxy dies after that, it restarts with the new plan.
        """
        async with self._lock:
            before = await asyncio.to_thread(self._file.read_text, encoding="utf-8")
            deployed = await asyncio.to_thread(self._write, plan)
            try:
                await self._runtime.reload()
            except (EscalaError, OSError):
                await asyncio.to_thread(write_atomically, self._file, before)
                raise
            self.deployed = deployed
            commit()
            with contextlib.suppress(OSError):  # what holds already must not fail over old files
                await asyncio.to_thread(self._tidy)

    async def enforce_revocations(self) -> None:
        """Refuse revoked tokens from now on: update the maps first, then clear the table of verified tokens."""
        tokens, users = self._revocations.maps()
        await self._runtime.set_map(self._revoked_tokens.name, tokens)
        await self._runtime.set_map(self._revoked_users.name, users)
        await self._runtime.forget_tokens()

    @property
    def _descriptors(self) -> tuple[int, ...]:
        assert self._bindings is not None
        return (*self._bindings.descriptors, *([self._log] if self._log is not None else []))

    @property
    def _file(self) -> Path:
        return self._layout.gateway / "haproxy.cfg"

    # These names are the same in all configurations. So revocations also reach old workers left from an earlier reload.

    @property
    def _revoked_tokens(self) -> Path:
        return self._layout.gateway / "revoked-tokens.map"

    @property
    def _revoked_users(self) -> Path:
        return self._layout.gateway / "revoked-users.map"

    def _try(self, plan: Plan) -> None:
        folder = self._layout.gateway / "check"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            self._check(plan, self._lay_out(plan, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _write(self, plan: Plan) -> Deployed:
        """Write a configuration next to the current one, let HAProxy check it, and put it in place."""
        number = self.deployed.number + 1
        folder = self._layout.gateway / str(number)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            candidate = self._lay_out(plan, folder)
            self._check(plan, candidate)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        candidate.replace(self._file)
        known = {(service, each.number): each.endpoint for service, servers in plan.servers.items() for each in servers}
        return Deployed(number, plan.topology, known)

    def _lay_out(self, plan: Plan, folder: Path) -> Path:
        """Write a configuration and the files it refers to into `folder`; return the configuration's path."""
        folder.mkdir(mode=0o700)
        tokens, users = self._revocations.maps()
        write_atomically(folder / "routes.map", routes_map(plan.topology))
        write_atomically(folder / "backends.map", backends_map(plan.topology))
        write_atomically(self._revoked_tokens, _lines(tokens))
        write_atomically(self._revoked_users, _lines(users))
        file = folder / "haproxy.cfg"
        write_atomically(file, render(plan.topology, plan.servers, self._context(plan, folder)))
        return file

    def _check(self, plan: Plan, file: Path) -> None:
        binary = self.find_binary(plan.topology.config.engines.haproxy.binary)
        try:
            haproxy.check(binary, file, self._layout.gateway, self._descriptors)
        except ConfigurationRefused as refused:
            text = file.read_text(encoding="utf-8")
            raise ConfigurationRefused.by_haproxy([explained(words, text) for words in refused.alerts]) from None

    def _context(self, plan: Plan, folder: Path) -> RenderContext:
        assert self._bindings is not None
        run = self._layout.run
        tls = certificates.find(self._root, plan.topology.config)
        return RenderContext(
            bind=self._bindings.bind,
            redirect=self._bindings.redirect,
            admin=self._bindings.admin,
            socket=str(run / "haproxy.sock"),
            unavailable=str(run / "unavailable.sock"),
            access_log=f"fd@{self._log}" if self._log is not None else None,
            route_metrics=str(run / "metrics.sock"),
            hold=str(HOLD),
            routes=f"{folder.name}/routes.map",
            backends=f"{folder.name}/backends.map",
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
        """Remove the files of earlier configurations; workers read them only once, when they start."""
        for folder in self._layout.gateway.iterdir():
            if folder.is_dir() and folder.name != str(self.deployed.number):
                shutil.rmtree(folder, ignore_errors=True)


def _lines(entries: Mapping[str, str]) -> str:
    return "".join(f"{key} {value}\n" for key, value in entries.items())
