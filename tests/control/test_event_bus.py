"""Events for several subscribers, each with a bounded queue."""

import asyncio

from escala.control.event_bus import EventBus, document
from escala.events import Event, Scaled


async def test_every_subscriber_gets_every_event_in_order() -> None:
    narrated: list[Event] = []
    bus = EventBus(narrated.append)
    bus.emit(Scaled("before", 1, 2))
    with bus.subscribe() as one, bus.subscribe() as other:
        events = [Scaled("web", 1, number) for number in range(3)]
        for event in events:
            bus.emit(event)
        for subscription in (one, other):
            stream = aiter(subscription)
            assert [(await anext(stream))[1] for _ in events] == events
    assert narrated == [Scaled("before", 1, 2), *events]


async def test_a_slow_subscriber_loses_the_oldest_and_holds_up_nobody() -> None:
    bus = EventBus(lambda event: None)
    with bus.subscribe(size=2) as slow, bus.subscribe() as quick:
        for number in range(5):
            bus.emit(Scaled("web", 0, number))
        assert slow.lost == 3
        assert quick.lost == 0
        stream = aiter(slow)
        assert [(await anext(stream))[1] for _ in range(2)] == [Scaled("web", 0, 3), Scaled("web", 0, 4)]


async def test_a_subscriber_waits_for_the_next_event() -> None:
    bus = EventBus(lambda event: None)
    with bus.subscribe() as subscription:
        waiting = asyncio.ensure_future(anext(aiter(subscription)))
        await asyncio.sleep(0)
        assert not waiting.done()
        bus.emit(Scaled("web", 1, 2))
        async with asyncio.timeout(5):
            assert (await waiting)[1] == Scaled("web", 1, 2)


def test_an_event_as_a_document() -> None:
    assert document(1.5, Scaled("web", 1, 2)) == {
        "event": "Scaled",
        "at": 1.5,
        "service": "web",
        "before": 1,
        "after": 2,
    }
