"""The coherent two-level cache: L1 in the process, L2 in Valkey."""

from escala.cache.decorator import Cache, Cached, Lookup
from escala.cache.system import CacheSystem, slot

__all__ = ["Cache", "CacheSystem", "Cached", "Lookup", "slot"]
