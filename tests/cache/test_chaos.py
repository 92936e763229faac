"""Trouble everywhere: no lookup fails that need not, and no read is staler than what is promised."""

import asyncio
import random
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from escala.cache import Cache, CacheSystem
from escala.cache.valkey.link import LEASE
from escala.errors import CacheUnavailable
from escala.testing import Trouble, chaos
from tests.cache.systems import acting_as, system, unique

things = Cache("things", jitter=0)


class Truth:
    """One value that changes, and what was read of it."""

    def __init__(self) -> None:
        self.value = 0
        self.written: list[tuple[float, int]] = [(0.0, 0)]
        """When an invalidation returned, and the value that had been written before."""

        @things.cached(name=unique(), tags=["truth"])
        async def load() -> int:
            seen = self.value
            await asyncio.sleep(random.random() * 0.02)
            return seen

        self.load: Any = load

    async def read(self, made: CacheSystem, bound: float) -> None:
        began = time.monotonic()
        with acting_as(made):
            seen = await self.load()
        missed = [at for at, value in self.written if value > seen and at <= began - bound]
        assert not missed, f"a value that was old for {began - min(missed):.3f} s"

    async def write(self, made: CacheSystem) -> None:
        self.value += 1
        written = self.value
        try:
            with acting_as(made):
                await things.invalidate("truth")
        except CacheUnavailable:
            return
        self.written.append((time.monotonic(), written))


BOUND = LEASE + 0.2
"""What is promised, and the longest delay that is made here. How soon it usually is, `benchmarks.cache` measures."""


@pytest.mark.parametrize(
    "trouble",
    [
        {},
        {"l1": Trouble(errors=0.3)},
        {"l2": Trouble(errors=0.02, delays=0.3)},
        {"bus": Trouble(delays=0.5, delay="100ms")},
        {"bus": Trouble(errors=0.1)},
        {"l1": Trouble(0.1), "l2": Trouble(0.01, 0.1), "bus": Trouble(0.05, 0.3), "loader": Trouble(delays=0.5)},
    ],
)
async def test_no_read_is_staler_than_promised(valkey_url: str, trouble: dict[str, Trouble]) -> None:
    chance = random.Random(1)
    truth = Truth()
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(system(valkey_url)) for _ in range(3)]
        for member in members:
            await stack.enter_async_context(chaos(**trouble, seed=2, system=member))
        end = time.monotonic() + 1.5
        while time.monotonic() < end or len(truth.written) < 2:
            deeds: list[Awaitable[None]] = [truth.read(chance.choice(members), BOUND) for _ in range(5)]
            if chance.random() < 0.3:
                deeds.append(truth.write(chance.choice(members)))
            await asyncio.gather(*deeds)


async def test_a_loader_in_trouble_is_answered_by_old_values(connected: CacheSystem) -> None:
    @things.cached(name=unique(), ttl="20ms", stale_if_error="10s")
    async def load() -> int:
        return 1

    await load()
    async with chaos(loader=Trouble(errors=1)):
        for _ in range(20):
            assert await load() == 1
            await asyncio.sleep(0.005)
    with pytest.raises(ValueError, match="probabilities"):
        Trouble(errors=2)
