"""[gateway]: the only public door, and the defaults of all services and routes."""

from typing import Annotated

from pydantic import Field, model_validator

from escala.config.access_log import AccessLogSettings
from escala.config.address import Address, BindAddress
from escala.config.balance import Balance
from escala.config.policy import Policy
from escala.config.tls import TlsSettings
from escala.config.types import Many, Network, Size


class GatewaySettings(Policy):
    bind: BindAddress = Address("127.0.0.1", 8000)
    """Where clients connect."""
    admin: BindAddress | None = None
    """Where metrics are read; a free port of 127.0.0.1, shown by `escala status`, unless given."""
    max_connections: int = Field(default=4096, ge=16, le=1_000_000)
    """Client connections at a time; further ones wait in the kernel's queue."""
    max_head: Annotated[Size, Field(ge=8 * 1024, le=256 * 1024)] = 15 * 1024
    """The largest head (first line and headers): of a request, or it gets 400; and of an answer, or it becomes 502.
    Each connection that is in use takes two buffers of this size."""
    forwarded: Many[Network] = ()
    """Proxies in front (a cloud's balancer, a CDN), as addresses or networks, whose X-Forwarded-For and -Proto say who
    the client is. Everybody else's are replaced."""
    proxy_protocol: bool = False
    """Whether the proxies in `forwarded` say it by the PROXY protocol; each connection of theirs must begin with it."""
    threads: int | None = Field(default=None, ge=1, le=64)
    """Threads of the gateway; as many as the machine has processors unless given."""
    balance: Balance = Balance()
    tls: TlsSettings | None = None
    access_log: AccessLogSettings = AccessLogSettings()

    @property
    def url(self) -> str:
        """Where a client on this machine finds the gateway."""
        return self.bind.url.replace("http://", "https://") if self.tls is not None else self.bind.url

    @model_validator(mode="after")
    def _proxies_are_named(self) -> "GatewaySettings":
        if self.proxy_protocol and not self.forwarded:
            raise ValueError("proxy_protocol needs forwarded: the addresses that speak it")
        return self
