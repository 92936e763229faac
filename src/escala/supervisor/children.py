"""All processes that the supervisor keeps alive: engines, gateway, collector, replicas."""

import asyncio
from collections.abc import Callable, Iterable

from escala.events import Emit
from escala.processes.child import Child
from escala.processes.lifecycle import Lifecycle
from escala.processes.logs import Logs
from escala.processes.orphans import Orphans
from escala.processes.registry import Registry
from escala.supervisor.gateway.process import GATEWAY, is_for_people


class Children:
    """Makes them, and stops them. `note` prints what goes wrong at the stop."""

    def __init__(self, logs: Logs, registry: Registry, orphans: Orphans, emit: Emit) -> None:
        self._logs = logs
        self._registry = registry
        self._orphans = orphans
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
            clean_up=self._orphans.end_of,  # which finds nothing of what is no replica
        )

    @property
    def platform(self) -> list[Child]:
        """All that is no replica."""
        return [*self.engines.values(), *filter(None, (self.gateway, self.collector))]

    async def stop(self, group: Iterable[Child]) -> None:
        """Stop children; what goes wrong with one is no reason to leave the others running."""
        self.report(await asyncio.gather(*(child.stop() for child in group), return_exceptions=True))

    def report(self, outcomes: Iterable[BaseException | None]) -> None:
        for error in outcomes:
            if error is not None:
                self._logs.say(f"while stopping: {error!r}")


def _shown(name: str) -> Callable[[str], bool]:
    """Return which lines of a process are for the console: of replicas all, of engines none."""
    if name == GATEWAY:
        return is_for_people
    return lambda line: "/" in name
