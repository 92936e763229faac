"""Escala scales a Python backend horizontally: one file, one command, real engines."""

import importlib
from typing import TYPE_CHECKING, Any

from escala._version import __version__

if TYPE_CHECKING:
    from escala import auth, database
    from escala.cache import Cache
    from escala.connections import from_thread, lifespan, running
    from escala.errors import EscalaError
    from escala.http import problem
    from escala.http.problem import Problem
    from escala.tasks.task import task

__all__ = [
    "Cache",
    "EscalaError",
    "Problem",
    "__version__",
    "auth",
    "database",
    "from_thread",
    "lifespan",
    "problem",
    "running",
    "task",
]

_HOMES = {
    "Cache": "escala.cache",
    "EscalaError": "escala.errors",
    "Problem": "escala.http.problem",
    "from_thread": "escala.connections",
    "lifespan": "escala.connections",
    "running": "escala.connections",
    "task": "escala.tasks.task",
}
_MODULES = {"auth": "escala.auth", "database": "escala.database", "problem": "escala.http.problem"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562).

    Escala's own programs that use none of these names do not load them, which saves memory.
    """
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
