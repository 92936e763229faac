"""What makes a child an engine, a replica or the gateway."""

from abc import ABC, abstractmethod

from escala.processes.process import ProcessSpec


class Lifecycle(ABC):
    """How a process is prepared and probed, and who is notified of it."""

    start_timeout: float
    """Seconds within which a process must be ready."""

    @abstractmethod
    async def prepare(self) -> ProcessSpec:
        """Return what to run; called before every start."""

    @abstractmethod
    async def probe(self) -> None:
        """Return when the process is ready; raise OSError while it is not, EscalaError where it never will be."""

    async def on_ready(self) -> None:  # noqa: B027 - not everybody has somebody to notify
        """Notify those who depend on the process; it counts as serving when this has returned."""

    async def on_end(self) -> None:  # noqa: B027
        """Notify them that it has ended."""
