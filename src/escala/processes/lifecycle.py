"""The interface that engines, replicas and the gateway implement to run as a child."""

from abc import ABC, abstractmethod

from escala.processes.process import ProcessSpec


class Lifecycle(ABC):
    """How a process is prepared and probed, and who is notified when it is ready or has ended."""

    start_timeout: float
    """Seconds within which a process must be ready."""

    @abstractmethod
    async def prepare(self) -> ProcessSpec:
        """Return what to run; called before every start."""

    @abstractmethod
    async def probe(self) -> None:
        """Return if the process is ready; raise OSError if it is not yet, EscalaError if it never will be."""

    async def on_ready(self) -> None:  # noqa: B027 - optional: some have nobody to notify
        """Notify those who depend on the process. It counts as serving once this has returned."""

    async def on_end(self) -> None:  # noqa: B027
        """Notify those who depend on the process that it has ended."""
