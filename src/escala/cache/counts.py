"""Counters of a cache in this process."""

from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(slots=True)
class Counts:
    l1: int = 0
    """Lookups that L1 answered."""
    l2: int = 0
    """Lookups that Valkey answered."""
    loader: int = 0
    """Lookups that a load answered, one load for several lookups included."""
    stale: int = 0
    """Lookups, counted above too, that were answered by a value older than its ttl."""
    loads: int = 0
    """Loads that were run."""
    errors: int = 0
    """Loads that failed."""
    waits: int = 0
    """Loads that waited for another process to load the value."""
    invalidations: int = 0
    """Invalidations that this process asked for."""
    oversized: int = 0
    """Values that were too large to be kept in Valkey."""

    def add(self, other: Mapping[str, int]) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + other.get(field.name, 0))

    def as_dict(self) -> dict[str, int]:
        return {field.name: getattr(self, field.name) for field in fields(self)}
