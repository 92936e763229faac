"""Addresses to listen on: "127.0.0.1:8000", "[::1]:8000", ":8000"."""

import ipaddress
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, PlainSerializer

Port = Annotated[int, Field(ge=1, le=65535)]


class UnixSocket(NamedTuple):
    """A listening socket in a folder; the folder's permissions control who can connect (unix(7))."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The address as a client on this machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"http://{Address(host, self.port)}"


class ListenAddress(NamedTuple):
    """An address, and the key of escala.toml that sets it, such as "services.web.ports[0]"."""

    key: str
    address: Address


Endpoint = Address | UnixSocket
"""Where a process listens."""


def parse_address(value: Any) -> Address:
    if isinstance(value, Address):
        return value
    hint = 'expected an address such as "127.0.0.1:8000", "[::1]:8000", or ":8000" for all interfaces'
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= 65535:
        raise ValueError(hint)
    if not host:
        return Address("0.0.0.0", int(port))  # noqa: S104 - asked for by leaving the host out
    if host == "localhost":
        return Address("127.0.0.1", int(port))
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        parsed = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ValueError(hint) from None
    if bracketed != (parsed.version == 6):
        raise ValueError(hint)
    return Address(str(parsed), int(port))


BindAddress = Annotated[Address, BeforeValidator(parse_address), PlainSerializer(str)]
