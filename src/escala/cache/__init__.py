"""The coherent two-level cache."""

from escala.cache.decorator import Cache, Cached, Lookup
from escala.cache.system import CacheSystem, slot

__all__ = ["Cache", "CacheSystem", "Cached", "Lookup", "slot"]
