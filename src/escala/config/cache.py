"""[cache]: the cache level within each process."""

from pydantic import Field

from escala.config.section import Section


class CacheSettings(Section):
    entries: int = Field(default=10_000, ge=0, le=10_000_000)
    """How many entries one replica keeps in its own memory (L1); 0 disables that level."""
