"""All processes that the supervisor keeps alive: engines, gateway, collector, replicas."""

import asyncio
from collections.abc import Callable, Iterable

from escala.events import Emit
from escala.processes.child import Child
from escala.processes.lifecycle import Lifecycle
from escala.processes.logs import Logs
from escala.processes.registry import Registry
from escala.supervisor.gateway.process import GATEWAY, is_for_people


class Children:
    """Creates the child processes and stops them. Errors during the stop go to the log and the console."""

    def __init__(self, logs: Logs, registry: Registry, clean_up: Callable[[str, int], None], emit: Emit) -> None:
        """`clean_up` is called each time a process has ended, with its name and id."""
        self._logs = logs
        self._registry = registry
        self._clean_up = clean_up
        self._emit = emit
        self.engines: dict[str, Child] = {}
        self.gateway: Child | None = None
        self.collector: Child | None = None

    def make(self, name: str, lifecycle: Lifecycle) -> Child:
        return Child(
            name,
            lifecycle,
            emit=self._emit,
            output=self._logs.sink(name, _shown(name)),
            registry=self._registry,
            clean_up=self._clean_up,
        )

    @property
    def platform(self) -> list[Child]:
        """All children that are not replicas."""
        return [*self.engines.values(), *filter(None, (self.gateway, self.collector))]

    async def stop(self, group: Iterable[Child]) -> None:
        """Stop children. If one fails to stop, the others are stopped all the same."""
        self.report(await asyncio.gather(*(child.stop() for child in group), return_exceptions=True))

    def report(self, outcomes: Iterable[BaseException | None]) -> None:
        for error in outcomes:
            if error is not None:
                self._logs.say(f"while stopping: {error!r}")


def _shown(name: str) -> Callable[[str], bool]:
    """Return a filter for the lines that go to the console.

    All lines of replicas pass, and no lines of engines. The gateway has a filter of its own.
    """
    if name == GATEWAY:
        return is_for_people
    return lambda line: "/" in name
