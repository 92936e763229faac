"""The coherent two-level cache: L1 in the process, L2 in Valkey."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from escala.cache.cache import Cache
    from escala.cache.cached import Cached, CachedPlain
    from escala.cache.loads import Lookup
    from escala.cache.policy import Options
    from escala.cache.system import CacheSystem, Limits, slot

__all__ = ["Cache", "CacheSystem", "Cached", "CachedPlain", "Limits", "Lookup", "Options", "slot"]

_HOMES = {
    "Cache": "cache",
    "CacheSystem": "system",
    "Cached": "cached",
    "CachedPlain": "cached",
    "Limits": "system",
    "Lookup": "loads",
    "Options": "policy",
    "slot": "system",
}


def __getattr__(name: str) -> Any:
    """Import a name on first use (PEP 562): who only connects to Valkey, or reads reports, loads no more than that."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"escala.cache.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
