"""Escala scales a Python backend horizontally: one file, one command, real engines."""

import importlib
from typing import TYPE_CHECKING, Any

from escala._version import __version__

if TYPE_CHECKING:
    from escala import auth, database, problem
    from escala.cache import Cache
    from escala.errors import EscalaError
    from escala.problem import Problem
    from escala.runtime import lifespan, running
    from escala.tasks.task import task

__all__ = [
    "Cache",
    "EscalaError",
    "Problem",
    "__version__",
    "auth",
    "database",
    "lifespan",
    "problem",
    "running",
    "task",
]

_HOMES = {
    "Cache": "escala.cache",
    "EscalaError": "escala.errors",
    "Problem": "escala.problem",
    "lifespan": "escala.runtime",
    "running": "escala.runtime",
    "task": "escala.tasks.task",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: programs of Escala that need none of them stay small (PEP 562)."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in {"auth", "database", "problem"}:
        return importlib.import_module(f"escala.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
