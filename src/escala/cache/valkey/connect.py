"""Where Valkey is, and how to connect to it.

- ``valkey://user:password@host:6379/0``: one server; ``valkeys://`` with TLS, ``unix://`` for a socket
- ``valkey+sentinel://host:26379,host2:26379/service``: the primary that the sentinels name (``/service/0``: a database)
- ``valkey+cluster://host:6379,host2:6379``: the primary of the cluster that holds the project's slot

``redis`` may stand for ``valkey``. User, password and the options of the query are those of every server.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import valkey.asyncio
from valkey.asyncio.connection import AbstractConnection, Connection, parse_url
from valkey.crc import key_slot
from valkey.exceptions import ValkeyError

Make: TypeAlias = Callable[[], AbstractConnection]

_SECONDS = 1.0


class Connector:
    """Finds the server at a URL that has the keys with a prefix. Raises ValueError if the URL cannot be read."""

    def __init__(self, url: str, prefix: str) -> None:
        self._slot = int(key_slot(prefix.encode()))
        scheme, _, rest = url.partition("://")
        scheme, _, self._kind = scheme.partition("+")
        self._service = ""
        if self._kind:
            rest = self._split(rest)
        options = dict(parse_url(f"{scheme.replace('redis', 'valkey')}://{rest}"))
        self._class: Any = options.pop("connection_class", Connection)
        # Answers are bytes, whatever the URL asks for. Time is limited by the link.
        self._options = {**options, "decode_responses": False, "socket_timeout": None, "protocol": 2}

    def _split(self, rest: str) -> str:
        """Take the list of hosts, and the name of the service, out of a URL; return the rest."""
        parts = urlsplit(f"//{rest}")
        login, at, hosts = parts.netloc.rpartition("@")
        self._hosts = [_host(text, 26379 if self._kind == "sentinel" else 6379) for text in hosts.split(",")]
        path = parts.path
        if self._kind == "sentinel":
            self._service, _, database = path.strip("/").partition("/")
            path = f"/{database}"
            if not self._service:
                raise ValueError("the URL of sentinels ends with the name of their service: /mymaster")
        elif self._kind != "cluster":
            raise ValueError(f"+{self._kind} is neither +sentinel nor +cluster")
        return f"{login}{at}localhost{path}?{parts.query}"

    async def locate(self) -> Make:
        """Find the server; return what makes connections to it. Raises one of `wire.FAILURES`."""
        if not self._kind:
            return lambda: self._make()
        host, port = await (self._ask_sentinels() if self._kind == "sentinel" else self._ask_cluster())
        return lambda: self._make(host=host, port=port)

    def _make(self, **place: Any) -> AbstractConnection:
        made: AbstractConnection = self._class(**{**self._options, **place})
        return made

    async def _ask_sentinels(self) -> tuple[str, int]:
        limits = {"socket_timeout": _SECONDS, "socket_connect_timeout": _SECONDS}
        sentinel = valkey.asyncio.Sentinel(self._hosts, sentinel_kwargs=limits)  # type: ignore[no-untyped-call]
        try:
            host, port = await sentinel.discover_master(self._service)
        finally:
            for client in sentinel.sentinels:
                await client.aclose()
        return str(host), int(port)

    async def _ask_cluster(self) -> tuple[str, int]:
        failure: Exception = ConnectionError("no server of the cluster answers")
        for host, port in self._hosts:
            connection = self._make(host=host, port=port, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS)
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_command("CLUSTER", "SLOTS")
                ranges = await connection.read_response()
                return next(self._primaries(ranges, host))
            except (OSError, ValkeyError) as error:
                failure = error
            except StopIteration:
                failure = ConnectionError("no server of the cluster holds the project's slot")
            finally:
                with suppress(OSError, ValkeyError):
                    await connection.disconnect(nowait=True)
        raise failure

    def _primaries(self, ranges: list[Any], asked: str) -> Iterator[tuple[str, int]]:
        """Yield the address of the primary that holds the project's slot (CLUSTER SLOTS)."""
        for first, last, primary, *_ in ranges:
            if first <= self._slot <= last:
                yield (primary[0].decode() if primary[0] else asked), int(primary[1])


def _host(text: str, port: int) -> tuple[str, int]:
    """Read "host:port" or "[::1]:port"."""
    host, colon, number = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, number = text, str(port)
    if not number.isdigit() or not host:
        raise ValueError(f"{text!r} is not a host with a port")
    return host.strip("[]"), int(number)
