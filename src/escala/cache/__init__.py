"""The coherent two-level cache."""

from escala.cache.cache import Cache, Cached, CacheSystem, Lookup, slot

__all__ = ["Cache", "CacheSystem", "Cached", "Lookup", "slot"]
