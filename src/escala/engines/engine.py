"""What the supervisor needs to know of an engine."""

import importlib.util
from pathlib import Path
from typing import Protocol

from escala.processes.process import ProcessSpec


class Engine(Protocol):
    """PostgreSQL or Valkey, embedded or external."""

    @property
    def name(self) -> str: ...

    @property
    def url(self) -> str:
        """Where clients reach it."""

    def prepare(self) -> None:
        """Make ready what a start needs. Blocking; called in a thread, before every start."""

    def process(self) -> ProcessSpec | None:
        """Return what to run; None for an engine that runs elsewhere."""

    async def probe(self) -> None:
        """Return when the engine answers; raise OSError or EngineFailed while it does not."""


def wheel_folder(package: str) -> Path | None:
    """Return the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None
