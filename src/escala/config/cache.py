"""[cache]: the bounds of the cache, in each process and in Valkey."""

from pydantic import Field

from escala.config.section import Section
from escala.config.types import Size


class CacheSettings(Section):
    entries: int = Field(default=10_000, ge=0, le=10_000_000)
    """How many entries one replica keeps in its own memory (L1); 0 disables that level."""
    bytes: Size = 64 * 1024**2
    """How much memory these entries may take in one replica, about."""
    value: Size = 4 * 1024**2
    """How large one value may be in Valkey, compressed; a larger one is not shared.

    In the embedded Valkey it is never more than an eighth of the memory.
    """
    compress: Size = 4 * 1024
    """The size from which values in Valkey are compressed."""
