"""[gateway]: the only public entry point, and the defaults for all services and routes."""

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
    """The address that clients connect to."""
    admin: BindAddress | None = None
    """The address for metrics. The default is a free port of 127.0.0.1, which `escala status` shows."""
    max_connections: int = Field(default=4096, ge=16, le=1_000_000)
    """How many client connections are open at a time. Further ones wait in the kernel's queue."""
    max_head: Annotated[Size, Field(ge=8 * 1024, le=256 * 1024)] = 15 * 1024
    """The maximum size of a head, which is the first line plus the headers.

    A request with a larger head gets 400. If an answer has a larger head, the client gets 502. Each active connection
    uses two buffers of this size.
    """
    forwarded: Many[Network] = ()
    """Trusted proxies in front of the gateway (a cloud's load balancer, a CDN), as addresses or networks.

    Their X-Forwarded-For and X-Forwarded-Proto headers identify the client. From anybody else, these headers are
    replaced.
    """
    proxy_protocol: bool = False
    """Whether proxies in `forwarded` use the PROXY protocol instead. Then all their connections must start with it."""
    threads: int | None = Field(default=None, ge=1, le=64)
    """The gateway's number of threads; the default is the machine's number of processors."""
    balance: Balance = Balance()
    tls: TlsSettings | None = None
    access_log: AccessLogSettings = AccessLogSettings()

    @property
    def url(self) -> str:
        """The URL at which a client on this machine reaches the gateway."""
        return self.bind.url.replace("http://", "https://") if self.tls is not None else self.bind.url

    @model_validator(mode="after")
    def _proxies_are_named(self) -> "GatewaySettings":
        if self.proxy_protocol and not self.forwarded:
            raise ValueError("proxy_protocol needs forwarded: the addresses of the proxies that use it")
        return self
