"""Trouble in the cache: delays and errors with a probability, at each of its parts."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from escala.cache import CacheSystem, slot
from escala.cache.request import Request
from escala.units import parse_duration


@dataclass(frozen=True)
class Trouble:
    """What happens to a part: with the probability `errors` it fails, with `delays` it takes up to `delay` longer."""

    errors: float = 0.0
    delays: float = 0.0
    delay: str = "50ms"

    def __post_init__(self) -> None:
        if not (0 <= self.errors <= 1 and 0 <= self.delays <= 1):
            raise ValueError("errors and delays are probabilities, from 0 to 1")
        parse_duration(self.delay)


class _Dice:
    def __init__(self, trouble: Trouble, chance: random.Random) -> None:
        self._trouble = trouble
        self._chance = chance

    def fails(self) -> bool:
        return self._chance.random() < self._trouble.errors

    def seconds(self) -> float:
        """Return how long to wait; mostly 0."""
        if self._chance.random() >= self._trouble.delays:
            return 0.0
        return self._chance.random() * parse_duration(self._trouble.delay)

    def around(self, work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def troubled(*args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(self.seconds())
            if self.fails():
                raise ConnectionError("trouble on purpose")
            result = await work(*args, **kwargs)
            await asyncio.sleep(self.seconds())
            if self.fails():
                raise ConnectionError("trouble on purpose, after the work was done")
            return result

        return troubled


@asynccontextmanager
async def chaos(
    *,
    l1: Trouble | None = None,
    l2: Trouble | None = None,
    bus: Trouble | None = None,
    loader: Trouble | None = None,
    seed: int | None = None,
    system: CacheSystem | None = None,
) -> AsyncIterator[None]:
    """Give the connected cache trouble until the end of the block.

    `l1` forgets entries (errors; it has no delays). `l2` fails or is slow, before a request is sent or after it was
    carried out. `bus` brings news late, in their order, and an error ends the connection. `loader` fails with
    ConnectionError, or is slow. The same `seed` gives the same dice, but not the same timing.

    Raises NotConnected if no cache is connected.
    """
    system = system or slot.get()
    chance = random.Random(seed)  # noqa: S311 - it makes trouble, and protects nothing
    undo: list[Callable[[], None]] = []

    def replace(owner: Any, name: str, value: Any) -> None:
        # On the instance: its class stays as it is.
        if name in vars(owner):
            undo.append(partial(setattr, owner, name, vars(owner)[name]))
        else:
            undo.append(partial(delattr, owner, name))
        setattr(owner, name, value)

    if l1 is not None:
        _trouble_l1(system, _Dice(l1, chance), replace)
    if l2 is not None and system.levels.l2 is not None:
        dice = _Dice(l2, chance)
        for name in ("read", "begin", "write", "renew", "release", "invalidate"):
            replace(system.levels.l2, name, dice.around(getattr(system.levels.l2, name)))
    if bus is not None:
        _trouble_bus(system, _Dice(bus, chance), replace)
    if loader is not None:
        dice, load = _Dice(loader, chance), system.loading.load

        def troubled(request: Request) -> Any:
            return load(request._replace(loader=dice.around(request.loader)))

        replace(system.loading, "load", troubled)
    try:
        yield
    finally:
        for step in reversed(undo):
            step()


def _trouble_l1(system: CacheSystem, dice: _Dice, replace: Callable[[Any, str, Any], None]) -> None:
    for level in (system.levels.shared, system.levels.alone):
        get = level.get

        def forgetful(key: str, get: Callable[[str], Any] = get) -> Any:
            return None if dice.fails() else get(key)

        replace(level, "get", forgetful)
    replace(system, "calls", {})  # the way around `get`


def _trouble_bus(system: CacheSystem, dice: _Dice, replace: Callable[[Any, str, Any], None]) -> None:
    """Deliver changes late, none before an earlier one. What makes L1 trusted comes after the changes before it."""
    loop = asyncio.get_running_loop()
    latest = loop.time()
    changed, trusted = system.changed, system.trusted

    def later(deliver: Callable[..., None], argument: Any) -> None:
        nonlocal latest
        latest = max(latest, loop.time() + dice.seconds())
        loop.call_at(latest, deliver, argument)

    def late_news(names: Iterable[str]) -> None:
        later(changed, list(names))
        link = system._link  # noqa: SLF001
        if dice.fails() and link is not None and link.wire is not None:
            link.wire.fail(ConnectionError("trouble on purpose"))

    replace(system, "changed", late_news)
    replace(system, "trusted", lambda until: later(trusted, until))
