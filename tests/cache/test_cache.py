"""The cache on a real Valkey: two processes are two CacheSystems that share it."""

import asyncio
import inspect
import random
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import msgspec
import pytest
import valkey.asyncio

from escala import cache as cache_package
from escala.cache import Cache, Cached, CacheSystem
from escala.cache.coherence import SILENCE
from escala.errors import CacheUnavailable, NotConnected
from tests.support import eventually


@asynccontextmanager
async def system(url: str, entries: int = 100) -> AsyncIterator[CacheSystem]:
    made = CacheSystem(url, "tests", entries)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def acting_as(made: CacheSystem) -> AsyncIterator[None]:
    """Let decorated functions use `made`, as in the process whose system it is."""
    cache_package.slot.fill(made)
    try:
        yield
    finally:
        cache_package.slot.empty()


async def test_it_closes_at_any_moment(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = CacheSystem(valkey_url, "tests", 100)
    send = valkey.asyncio.Connection._send_packed_command
    closing: list[asyncio.Task[None]] = []

    async def close_as_it_is_sent(connection: valkey.asyncio.Connection, command: list[bytes]) -> None:
        await send(connection, command)
        if any(b"PING" in part for part in command) and not closing:
            closing.append(asyncio.create_task(made.close()))

    monkeypatch.setattr(valkey.asyncio.connection.AbstractConnection, "_send_packed_command", close_as_it_is_sent)
    await made.open()

    async def closed() -> bool:
        return bool(closing) and closing[0].done()

    await eventually(closed, "it is closed", 3)


@pytest.fixture
async def connected(valkey_url: str) -> AsyncIterator[CacheSystem]:
    async with system(valkey_url) as made, acting_as(made):
        yield made


things = Cache("things")


def counted(**options: Any) -> tuple[Cached[[int], dict[str, int]], list[int]]:
    calls: list[int] = []

    @things.cached(ttl="60s", **options)
    async def load(number: int) -> dict[str, int]:
        calls.append(number)
        return {"number": number, "call": len(calls)}

    return load, calls


async def test_a_value_is_loaded_once(connected: CacheSystem) -> None:
    load, calls = counted()
    assert (await load.lookup(1)).source == "loader"
    assert await load.lookup(1) == ({"number": 1, "call": 1}, "l1")
    assert await load(1) == {"number": 1, "call": 1}
    await load(2)
    assert calls == [1, 2]
    assert connected.counts == {"loader": 2, "l1": 2}


async def test_arguments_by_name_or_place_are_the_same_call(connected: CacheSystem) -> None:
    @things.cached(ttl="60s")
    async def load(first: int, second: int = 2) -> int:
        return first + second

    assert (await load.lookup(1)).source == "loader"
    assert (await load.lookup(first=1)).source == "l1"
    assert (await load.lookup(second=2, first=1)).source == "l1"


async def test_another_process_finds_it_in_l2(connected: CacheSystem, valkey_url: str) -> None:
    load, calls = counted()
    await load(1)
    cache_package.slot.empty()
    async with system(valkey_url) as other, acting_as(other):
        assert (await load.lookup(1)).source == "l2"
        assert (await load.lookup(1)).source == "l1"
    cache_package.slot.fill(connected)
    assert calls == [1]


async def test_invalidation_by_tag(connected: CacheSystem) -> None:
    load, calls = counted(tags=["n:{number}"])
    await load(1)
    await load(2)
    await things.invalidate("n:1")
    assert (await load.lookup(1)).source == "loader"
    assert (await load.lookup(2)).source == "l1"
    assert calls == [1, 2, 1]


async def test_clearing_a_cache_leaves_others(connected: CacheSystem) -> None:
    load, _ = counted()
    others = Cache("others")

    @others.cached(ttl="60s")
    async def other() -> int:
        return 1

    await load(1)
    await other()
    await things.clear()
    assert (await load.lookup(1)).source == "loader"
    assert (await other.lookup()).source == "l1"


async def test_an_invalidation_reaches_the_other_process(connected: CacheSystem, valkey_url: str) -> None:
    load, _ = counted(tags=["t"])
    async with system(valkey_url) as other:
        await load(1)
        assert len(connected.l1) == 1
        await other.invalidate(["things:t"])

        async def gone() -> bool:
            return len(connected.l1) == 0

        await eventually(gone, "the other's L1 is empty", 2)
        assert (await load.lookup(1)).source == "loader"


async def test_a_load_that_an_invalidation_overtook_is_kept_nowhere(connected: CacheSystem) -> None:
    go = asyncio.Event()
    values = iter(["old", "new", "newer"])

    @things.cached(ttl="60s", tags=["t"])
    async def load() -> str:
        value = next(values)
        await go.wait()
        return value

    first = asyncio.create_task(load.lookup())
    async with asyncio.timeout(5):
        await _begun(connected)
    await things.invalidate("t")
    second = asyncio.create_task(load.lookup())  # began after the invalidation: must not join the first
    await asyncio.sleep(0)
    go.set()
    assert (await first).value == "old"
    assert (await second).value == "new"
    assert await load.lookup() in [("new", "l1"), ("new", "l2")]


async def _begun(connected: CacheSystem) -> None:
    while not connected.loads:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)  # into the loader, behind the read of L2


async def test_concurrent_calls_share_one_load(connected: CacheSystem) -> None:
    load, calls = counted()
    await asyncio.gather(*(load(7) for _ in range(200)))
    assert calls == [7]


async def test_a_caller_that_gives_up_does_not_take_the_value_from_others(connected: CacheSystem) -> None:
    go = asyncio.Event()

    @things.cached(ttl="60s")
    async def load() -> int:
        await go.wait()
        return 1

    impatient = asyncio.create_task(load())
    patient = asyncio.create_task(load())
    await asyncio.sleep(0.05)
    impatient.cancel()
    go.set()
    assert await patient == 1


async def test_a_failing_loader_fails_its_callers_and_is_tried_again(connected: CacheSystem) -> None:
    calls = []

    @things.cached(ttl="60s")
    async def load() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("no")
        return 1

    with pytest.raises(ValueError, match="no"):
        await load()
    assert await load() == 1


async def test_ttl(connected: CacheSystem) -> None:
    calls = []

    @things.cached(ttl="80ms")
    async def load() -> int:
        calls.append(1)
        return len(calls)

    assert await load() == 1

    async def reloaded() -> bool:
        return await load() == 2

    await eventually(reloaded, "the entry expires", 5)


@dataclass
class Flight:
    number: int
    day: date


async def test_types_are_the_same_from_every_level(connected: CacheSystem, valkey_url: str) -> None:
    @things.cached(ttl="60s")
    async def load(day: date) -> list[Flight]:
        return [Flight(1, day)]

    day = date(2013, 1, 1)
    first, second = await load.lookup(day), await load.lookup(day)
    connected.l1.switch_on()
    third = await load.lookup(day)
    assert [first.source, second.source, third.source] == ["loader", "l1", "l2"]
    assert first.value == second.value == third.value == [Flight(1, day)]


@pytest.mark.parametrize("rubbish", [b"", b"\xc1", b"\x93\x01\x02\x03", b"x" * 100])
async def test_rubbish_in_valkey_is_a_miss(connected: CacheSystem, valkey_url: str, rubbish: bytes) -> None:
    load, _ = counted()
    await load(1)
    client = valkey.asyncio.Valkey.from_url(valkey_url)
    for key in await client.keys("escala:tests:e:*"):
        await client.set(key, rubbish)
    await client.aclose()
    connected.l1.switch_on()
    assert (await load.lookup(1)).source == "loader"


async def test_evicted_generations_are_misses_never_old_values(connected: CacheSystem, valkey_url: str) -> None:
    load, _ = counted(tags=["t"])
    await load(1)
    client = valkey.asyncio.Valkey.from_url(valkey_url)
    for key in await client.keys("escala:tests:t:*"):
        await client.delete(key)
    await client.aclose()
    connected.l1.switch_on()
    assert (await load.lookup(1)).source == "loader"


async def test_a_broken_subscription_switches_l1_off_and_on_again(connected: CacheSystem, valkey_url: str) -> None:
    load, _ = counted()
    await load(1)
    client = valkey.asyncio.Valkey.from_url(valkey_url)
    await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    async def empty() -> bool:
        return len(connected.l1) == 0

    async def on() -> bool:
        return connected.l1.on

    await eventually(empty, "L1 is emptied", 2)
    await eventually(on, "L1 is on again", 5)
    await client.aclose()


@pytest.mark.parametrize("rubbish", [b"\xc1garbage", b"", b"\x01", b"\xff" * 1000])
async def test_an_unreadable_message_is_taken_as_one_that_concerns_everything(
    connected: CacheSystem, valkey_url: str, rubbish: bytes
) -> None:
    load, _ = counted(tags=["t"])
    await load(1)
    client = valkey.asyncio.Valkey.from_url(valkey_url)
    await client.publish(connected.l2.channel, rubbish)

    async def empty() -> bool:
        return len(connected.l1) == 0

    await eventually(empty, "L1 is emptied", 2)
    await load(1)
    assert len(connected.l1) == 1
    await client.publish(connected.l2.channel, msgspec.msgpack.encode(["things:t"]))
    await eventually(empty, "the subscription still stands", 2)
    await client.aclose()


async def test_values_are_bytes_whatever_the_url_asks_for(valkey_url: str) -> None:
    load, _ = counted(tags=["t"])
    async with system(f"{valkey_url}?decode_responses=true") as made, acting_as(made):
        await load(1)
        made.l1.switch_on()
        assert (await load.lookup(1)).source == "l2"


async def test_a_silent_valkey_switches_l1_off_within_a_second(connected: CacheSystem, valkey_url: str) -> None:
    """CLIENT PAUSE leaves the connection open and says nothing: a half-open socket looks like this."""
    load, calls = counted()
    await load(1)
    client = valkey.asyncio.Valkey.from_url(valkey_url)
    await client.execute_command("CLIENT", "PAUSE", "2500", "ALL")
    paused = time.monotonic()

    async def off() -> bool:
        return not connected.l1.on

    await eventually(off, "L1 is off", 5)
    assert time.monotonic() - paused < SILENCE + 0.5
    assert (await load.lookup(1)).source == "loader"  # at once, not after Valkey's time-out
    assert calls == [1, 1]
    await client.aclose()

    async def on() -> bool:
        return connected.l1.on

    await eventually(on, "L1 is on again", 10)


async def test_without_valkey_the_loader_answers_and_invalidation_says_no() -> None:
    load, calls = counted()
    async with system("unix:///nowhere/valkey.sock") as lonely, acting_as(lonely):
        assert (await load.lookup(1)).source == "loader"
        assert (await load.lookup(1)).source == "loader"
        with pytest.raises(CacheUnavailable, match="try again"):
            await things.invalidate("t")
    assert calls == [1, 1]


async def test_unconnected() -> None:
    load, _ = counted()
    with pytest.raises(NotConnected, match="lifespan"):
        await load(1)


def test_declarations_that_cannot_work() -> None:
    with pytest.raises(ValueError, match="longer than a day"):
        things.cached(ttl="2d")
    with pytest.raises(ValueError, match="expected a"):
        things.cached(ttl="60")
    with pytest.raises(TypeError, match="not an async function"):
        things.cached(ttl="1s")(lambda: 1)  # type: ignore[arg-type, return-value]

    async def load(number: int) -> int:
        return number

    for template, named in (("x:{nmber}", "nmber"), ("x:{}", "nothing"), ("x:{0}", "0")):
        with pytest.raises(TypeError, match=f"tags name {named}"):
            things.cached(ttl="1s", tags=[template])(load)

    async def method(self: object, number: int) -> int:
        return number

    with pytest.raises(TypeError, match="a method cannot be cached"):
        things.cached(ttl="1s")(method)


async def test_a_result_that_cannot_be_kept_fails_with_and_without_valkey(valkey_url: str) -> None:
    @things.cached(ttl="1s")
    async def load() -> object:
        return object()

    for url in (valkey_url, "unix:///nowhere/valkey.sock"):
        async with system(url) as made, acting_as(made):
            with pytest.raises(TypeError):
                await load()


@pytest.mark.parametrize("seed", range(3))
async def test_history(valkey_url: str, seed: int) -> None:
    """Three processes read and write one value at random: a read that starts after a write's return never sees less.

    The bound is zero here: the invalidating process, and every read that reaches Valkey, see a write at once; the two
    others get 0.2 s for the message to arrive.
    """
    bound = 0.2
    chance = random.Random(seed)
    truth = 0
    history: list[tuple[float, int]] = [(0.0, 0)]  # when a write returned, and what it wrote

    @things.cached(ttl="60s", tags=["truth"])
    async def load() -> int:
        seen = truth
        await asyncio.sleep(chance.random() * 0.02)
        return seen

    async with system(valkey_url) as a, system(valkey_url) as b, system(valkey_url) as c:
        members = [a, b, c]

        async def read(member: CacheSystem) -> None:
            began = time.monotonic()
            newest = max(value for at, value in history if at <= began - bound)
            found = await load._lookup(member, inspect.signature(load).bind())
            assert found.value >= newest

        async def write(member: CacheSystem) -> None:
            nonlocal truth
            truth += 1
            written = truth
            await member.invalidate(["things:truth", "things:"])
            history.append((time.monotonic(), written))

        end = time.monotonic() + 3
        while time.monotonic() < end:
            deeds: list[Awaitable[None]] = [read(chance.choice(members)) for _ in range(5)]
            if chance.random() < 0.3:
                deeds.append(write(chance.choice(members)))
            await asyncio.gather(*deeds)
    assert truth > 10
