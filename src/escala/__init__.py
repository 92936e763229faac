"""Escala scales a Python backend horizontally: one file, one command, real engines."""

from escala import auth, database, problem
from escala._version import __version__
from escala.cache import Cache
from escala.errors import EscalaError
from escala.problem import Problem
from escala.runtime import lifespan, running
from escala.tasks import task

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
