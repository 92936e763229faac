"""[gateway]: the only public door."""

from pydantic import Field

from escala.config.address import Address, BindAddress
from escala.config.section import Section
from escala.config.units import Duration, Size


class Gateway(Section):
    bind: BindAddress = Address("127.0.0.1", 8000)
    """Where clients connect."""
    timeout: Duration = 30.0
    """How long a service may take to answer, unless its route says otherwise; then 504."""
    max_body: Size = 10 * 1024**2
    """The largest request body that is let through; above it 413."""
    max_connections: int = Field(default=4096, ge=16, le=1_000_000)
    """Client connections at a time; further ones wait in the kernel's queue."""
