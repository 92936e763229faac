"""The interface of an engine for the supervisor."""

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
        """The URL at which clients reach the engine."""

    def prepare(self) -> None:
        """Prepare a start. Blocking; called in a thread, before every start."""

    def process(self) -> ProcessSpec | None:
        """Return the process to start; None for an external engine."""

    async def probe(self) -> None:
        """Return if the engine answers; raise OSError or EngineFailed if it does not."""


def wheel_folder(package: str) -> Path | None:
    """Return the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None
