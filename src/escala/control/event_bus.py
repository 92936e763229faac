"""Events of a running project, for several subscribers; a slow one loses events and holds up nobody."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from escala.events import Event

QUEUE = 1000
"""Events that wait for one subscriber."""


class Subscription:
    """A queue of events, the oldest dropped where it is full; iterate over it, from one task."""

    def __init__(self, size: int) -> None:
        self._events: deque[tuple[float, Event]] = deque(maxlen=size)
        self._arrived = asyncio.Event()
        self.lost = 0
        """Events that were dropped."""

    def put(self, at: float, event: Event) -> None:
        if len(self._events) == self._events.maxlen:
            self.lost += 1
        self._events.append((at, event))
        self._arrived.set()

    async def __aiter__(self) -> AsyncIterator[tuple[float, Event]]:
        while True:
            while self._events:
                yield self._events.popleft()
            self._arrived.clear()
            await self._arrived.wait()


class EventBus:
    """`narrate` gets each event at once, in the order in which they happen; subscribers get them by their queues."""

    def __init__(self, narrate: Callable[[Event], None]) -> None:
        self._narrate = narrate
        self._subscriptions: set[Subscription] = set()

    def emit(self, event: Event) -> None:
        self._narrate(event)
        now = time.time()
        for subscription in self._subscriptions:
            subscription.put(now, event)

    @contextmanager
    def subscribe(self, size: int = QUEUE) -> Iterator[Subscription]:
        """Lend a queue of the events from now on."""
        subscription = Subscription(size)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)


def document(at: float, event: Event) -> dict[str, Any]:
    """Return an event as the control socket sends it: {"event": "Scaled", "at": 1.0, ...its fields}."""
    fields: dict[str, Any] = msgspec.to_builtins(event)
    return {"event": type(event).__name__, "at": at, **fields}
