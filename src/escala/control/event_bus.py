"""Delivers the events of a running project to several subscribers. A slow one loses events, but blocks nobody."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from escala.events import Event

QUEUE = 1000
"""The maximum number of events that wait for one subscriber."""


class Subscription:
    """A queue of events. If it is full, the oldest event is dropped. Only one task may iterate over it."""

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
    """Passes each event to `narrate` at once and in order. Subscribers receive it through their queues."""

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
        """Provide a queue of the events from now on, for the duration of a `with` block."""
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
