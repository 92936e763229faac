"""Locks that allow one operation at a time for each service.

It does not matter who starts the operation: a person, the autoscaler, the recycler or a signal.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from escala.errors import ServiceBusy


class ServiceLocks:
    """Nobody waits for a lock. If a service is busy, the caller gets ServiceBusy and may try again later."""

    def __init__(self) -> None:
        self._holders: dict[str, str] = {}

    def holder(self, service: str) -> str | None:
        """Return the operation that holds the lock of a service; None if the service is free."""
        return self._holders.get(service)

    @contextmanager
    def hold(self, services: Iterable[str], by: str) -> Iterator[None]:
        """Lock all of `services` for an operation, or raise ServiceBusy and lock none."""
        wanted = set(services)
        for service in sorted(wanted & self._holders.keys()):
            raise ServiceBusy(service, self._holders[service])
        self._holders.update(dict.fromkeys(wanted, by))
        try:
            yield
        finally:
            for service in wanted:
                del self._holders[service]
