"""One operation at a time for each service, whoever asks: a person, the autoscaler, the recycler, a signal."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from escala.errors import ServiceBusy


class ServiceLocks:
    """Nobody waits for a lock: who finds a service busy is told so, and may come again."""

    def __init__(self) -> None:
        self._holders: dict[str, str] = {}

    def holder(self, service: str) -> str | None:
        """Return what a service is locked for; None where it is free."""
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
