"""[gateway]: the only public door, and the defaults of all services and routes."""

from pydantic import Field

from escala.config.access_log import AccessLog
from escala.config.address import Address, BindAddress
from escala.config.balance import Balance
from escala.config.policy import Policy
from escala.config.tls import Tls


class Gateway(Policy):
    bind: BindAddress = Address("127.0.0.1", 8000)
    """Where clients connect."""
    admin: BindAddress | None = None
    """Where metrics are read; a free port of 127.0.0.1, shown by `escala status`, unless given."""
    max_connections: int = Field(default=4096, ge=16, le=1_000_000)
    """Client connections at a time; further ones wait in the kernel's queue."""
    threads: int | None = Field(default=None, ge=1, le=64)
    """Threads of the gateway; as many as the machine has processors unless given."""
    balance: Balance = Balance()
    tls: Tls | None = None
    access_log: AccessLog = AccessLog()
