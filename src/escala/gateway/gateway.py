"""The gateway: HAProxy with a configuration of ours."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from escala.auth.keys import KeyStore
from escala.config import Address, Config
from escala.engines import haproxy
from escala.gateway.render import HARD_STOP_SECONDS, render
from escala.gateway.runtime import Runtime
from escala.gateway.upstream import Backend, Paths
from escala.layout import Layout, write_atomically
from escala.process import ProcessSpec


class Gateway:
    """Writes, checks and describes the process; the supervisor runs it.

    `backends` is asked at every start, so that a gateway that died comes back with the replicas of that moment.
    """

    def __init__(self, config: Config, layout: Layout, backends: Callable[[], Sequence[Backend]]) -> None:
        self._config = config
        self._layout = layout
        self._backends = backends
        self._binary: Path | None = None
        self.runtime = Runtime(layout.run / "haproxy.sock")

    @property
    def address(self) -> Address:
        return self._config.gateway.bind

    def find_binary(self) -> Path:
        """Find HAProxy, once; raise EngineMissing where there is none."""
        if self._binary is None:
            self._binary = haproxy.find(self._config.engines.haproxy.binary)
        return self._binary

    def prepare(self) -> ProcessSpec:
        """Write the configuration, let HAProxy check it, and return what to run. Blocking."""
        binary = self.find_binary()
        public_key = self._layout.gateway / "public.pem"
        write_atomically(public_key, KeyStore(self._layout).public_pem())
        run = self._layout.run
        paths = Paths(
            socket=str(run / "haproxy.sock"), unavailable=str(run / "unavailable.sock"), public_key=str(public_key)
        )
        file = self._layout.gateway / "haproxy.cfg"
        candidate = file.with_suffix(".new")
        write_atomically(candidate, render(self._config, self._backends(), paths))
        haproxy.check(binary, candidate)
        candidate.replace(file)
        return haproxy.process(binary, file, HARD_STOP_SECONDS + 1)

    async def probe(self) -> None:
        """Return when the gateway takes connections; raise OSError while it does not."""
        await self.runtime.command("show info")
        host, port = self.address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
