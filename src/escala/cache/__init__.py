"""The coherent two-level cache: L1 in the process, L2 in Valkey."""

from escala.cache.cache import Cache
from escala.cache.cached import Cached, CachedPlain
from escala.cache.loads import Lookup
from escala.cache.policy import Options
from escala.cache.system import CacheSystem, Limits, slot

__all__ = ["Cache", "CacheSystem", "Cached", "CachedPlain", "Limits", "Lookup", "Options", "slot"]
