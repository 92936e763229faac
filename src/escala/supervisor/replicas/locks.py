"""Locks that allow one operation at a time for each service.

It does not matter who starts the operation: a person, the autoscaler, the recycler or a signal.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from escala.errors import ServiceBusy

PROJECT = "the project"
"""What `apply` locks besides services, so that only one runs at a time. No service can have this name."""


class ServiceLocks:
    """Nobody waits for a lock. If a service is busy, the caller gets ServiceBusy and may try again later."""

    def __init__(self) -> None:
        self._holders: dict[str, str] = {}

    def holder(self, service: str) -> str | None:
        """Return the operation that holds the lock of a service; None if the service is free."""
        return self._holders.get(service)

    def require_free(self, services: Iterable[str]) -> None:
        """Raise ServiceBusy if one of `services` is locked."""
        for service in sorted(set(services) & self._holders.keys()):
            raise ServiceBusy(service, self._holders[service])

    @contextmanager
    def hold(self, services: Iterable[str], by: str) -> Iterator[None]:
        """Lock all of `services` for an operation, or raise ServiceBusy and lock none."""
        wanted = set(services)
        self.require_free(wanted)
        self._holders.update(dict.fromkeys(wanted, by))
        try:
            yield
        finally:
            for service in wanted:
                del self._holders[service]
