"""Two processes are two CacheSystems that share a Valkey. What one changes the other no longer has."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, make_dataclass
from typing import Any

import pytest

from escala.cache import Cache, CacheSystem
from escala.cache import cache as cache_module
from escala.cache.cached import Target
from escala.cache.levels import DEGRADED_SECONDS
from escala.cache.valkey import l2, link
from escala.cache.valkey.l2 import Address
from escala.cache.valkey.wire import Socket
from escala.errors import CacheUnavailable, LoadCancelled, LoadTimedOut, NoValkey, ValueTooLarge
from tests.cache.systems import acting_as, client, system, unique
from tests.support import eventually

things = Cache("things", jitter=0)


@pytest.fixture
async def other(valkey_url: str) -> AsyncIterator[CacheSystem]:
    async with system(valkey_url) as made:
        yield made


def counted(cache: Cache = things, **options: Any) -> tuple[Any, list[int]]:
    calls: list[int] = []

    @cache.cached(name=unique(), **options)
    async def load(number: int) -> dict[str, int]:
        calls.append(number)
        return {"number": number, "call": len(calls)}

    return load, calls


async def in_l1(load: Any, made: CacheSystem) -> None:
    """Ask until the answer comes from L1 of the process `made`."""
    with acting_as(made):

        async def found() -> bool:
            return bool((await load.lookup(1)).source == "l1")

        await eventually(found, "it is in L1", 5)


async def gone(made: CacheSystem) -> None:
    async def empty() -> bool:
        return len(made.levels.shared) == 0

    await eventually(empty, "L1 is empty", 2)


async def on(made: CacheSystem) -> None:
    async def connected() -> bool:
        return made.connected

    await eventually(connected, "L1 is on", 10)


async def test_another_process_finds_it_in_l2(connected: CacheSystem, other: CacheSystem) -> None:
    load, calls = counted()
    await load(1)
    with acting_as(other):
        assert (await load.lookup(1)).source == "l2"
    await in_l1(load, other)
    assert calls == [1]


@pytest.mark.parametrize("what", ["tag", "clear", "delete", "set"])
async def test_an_invalidation_reaches_the_other_process(connected: CacheSystem, other: CacheSystem, what: str) -> None:
    load, calls = counted(tags=["n:{number}"])
    await things.set("key", 1)
    await in_l1(load, connected)
    await in_l1(load, other)
    with acting_as(connected):

        async def kept() -> bool:
            return await things.get("key") == 1 and bool(connected.levels.shared.get("e:things:=key"))

        await eventually(kept, "the key is in L1", 5)
    with acting_as(other):
        if what == "tag":
            await things.invalidate("n:1")
        elif what == "clear":
            await things.clear()
        elif what == "delete":
            await load.delete(1)
        else:
            await things.set("key", 2)

    async def dropped() -> bool:
        name = "e:things:=key" if what == "set" else f"e:{load.key(1)}"
        return connected.levels.shared.get(name) is None

    await eventually(dropped, "L1 has dropped it", 2)
    if what == "set":
        assert await things.get("key") == 2
    else:
        assert (await load.lookup(1)).source == "loader"
        assert calls == [1, 1]


@pytest.mark.parametrize("what", ["DEL", "UNLINK", "FLUSHALL", "FLUSHDB"])
async def test_what_somebody_deletes_by_hand_is_gone(connected: CacheSystem, valkey_url: str, what: str) -> None:
    load, calls = counted()
    await in_l1(load, connected)
    async with client(valkey_url) as person:
        keys = await person.keys("escala:{tests}:e:*")
        await (person.execute_command(what) if what.startswith("FLUSH") else person.execute_command(what, *keys))
    await gone(connected)
    assert (await load.lookup(1)).source == "loader"
    assert calls == [1, 1]


async def test_a_load_that_an_invalidation_overtook_is_kept_nowhere(connected: CacheSystem, other: CacheSystem) -> None:
    for invalidate in (lambda load: things.invalidate("t"), lambda load: things.clear(), lambda load: load.delete()):
        go = asyncio.Event()
        values = ["newer", "new", "old"]
        load = gated(values, go)
        first = asyncio.create_task(load.lookup())

        async def begun(values: list[str] = values) -> bool:
            return "old" not in values

        await eventually(begun, "the loader runs", 5)
        with acting_as(other):
            await invalidate(load)
        await asyncio.sleep(0.1)  # the message has arrived
        second = asyncio.create_task(load.lookup())  # began after the invalidation: must not join the first
        await asyncio.sleep(0.01)
        go.set()
        assert (await first).value == "old"
        assert (await second).value in ("new", "newer")
        with acting_as(other):
            assert (await load.lookup()).value in ("new", "newer")


def gated(values: list[str], go: asyncio.Event) -> Any:
    """Return a cached function that takes the last of `values`, and returns it when it may."""

    @things.cached(name=unique(), tags=["t"])
    async def load() -> str:
        value = values.pop()
        await go.wait()
        return value

    return load


async def test_types_are_the_same_from_every_level(connected: CacheSystem, other: CacheSystem) -> None:
    @dataclass
    class Flight:
        number: int

    @things.cached(name=unique())
    async def load(number: int) -> list[Flight]:
        return [Flight(number)]

    first = await load.lookup(1)
    with acting_as(other):
        second = await load.lookup(1)
    await in_l1(load, other)
    with acting_as(other):
        third = await load.lookup(1)
    assert [first.source, second.source, third.source] == ["loader", "l2", "l1"]
    assert first.value == second.value == third.value == [Flight(1)]


async def test_versions_of_a_deploy_get_their_own_values(connected: CacheSystem, other: CacheSystem) -> None:
    """Two versions of one function, whose return types differ, share the cache, and each gets what it declares."""
    old_type = make_dataclass("Flight", [("number", int)])
    new_type = make_dataclass("Flight", [("number", int), ("gate", str, "")])
    name = unique()
    calls = []

    async def old(number: int) -> Any:
        calls.append("old")
        return old_type(number)

    async def new(number: int) -> Any:
        calls.append("new")
        return new_type(number, "B7")

    old.__annotations__["return"], new.__annotations__["return"] = old_type, new_type
    running = Cache("things").cached(name=name)(old)
    cache_module._functions.clear()  # they are in different processes
    coming = Cache("things").cached(name=name)(new)
    assert running.key(1) == coming.key(1)
    for _ in range(3):
        with acting_as(connected):
            assert await running(1) == old_type(1)
        with acting_as(other):
            assert await coming(1) == new_type(1, "B7")
    assert calls == ["old", "new"]
    with acting_as(other):
        await coming.delete(1)
    await gone(connected)
    with acting_as(connected):
        assert (await running.lookup(1)).source == "loader"


HEAD_SIZE = l2._HEAD.size + 8
"""What stands before the value in a field of an entry with one tag."""
PAYLOADS = [b"", b"\xc1", b"\x93\x01\x02\x03", b"x" * 100]


@pytest.mark.parametrize("rubbish", PAYLOADS)
@pytest.mark.parametrize("kind", ["field", "string"])
async def test_rubbish_in_valkey_is_a_miss(connected: CacheSystem, valkey_url: str, rubbish: bytes, kind: str) -> None:
    load, _ = counted()
    await load(1)
    await things.set("key", 1)
    async with client(valkey_url) as person:
        for key in await person.keys("escala:{tests}:e:*"):
            if kind == "string":
                await person.set(key, rubbish)
            else:
                for field in await person.hkeys(key):
                    await person.hset(key, field, rubbish)
    await gone(connected)
    assert await things.get("key") is None
    assert (await load.lookup(1)).source == "loader"
    assert (await load.lookup(1)).source == "l2"


async def test_an_older_versions_payload_is_a_miss(connected: CacheSystem, valkey_url: str) -> None:
    """What the previous format wrote: valid head and generations, and a body that is no value of this version."""
    load, _ = counted()
    await load(1)
    async with client(valkey_url) as person:
        (key,) = await person.keys("escala:{tests}:e:*")
        ((field, value),) = (await person.hgetall(key)).items()
        for body in (b"\x00" + b"\xa3abc", b"\x01not zlib", b"\x02?", b"\x00"):
            await person.hset(key, field, value[:HEAD_SIZE] + body)
            await gone(connected)
            assert await connected.peek(_request(load)) is None
    assert (await load.lookup(1)).source == "loader"


def _request(load: Any) -> Any:
    """Return the request of a call, which peeks without loading."""
    (target,) = [c.cell_contents for c in load.delete.__closure__ if isinstance(c.cell_contents, Target)]
    return target.request({"number": 1})


async def test_evicted_generations_are_misses_never_old_values(connected: CacheSystem, valkey_url: str) -> None:
    load, _ = counted(tags=["t"])
    await load(1)
    async with client(valkey_url) as person:
        for key in await person.keys("escala:{tests}:t:*"):
            await person.delete(key)
    assert (await load.lookup(1)).source == "loader"


async def test_a_large_value_is_compressed(connected: CacheSystem, valkey_url: str, other: CacheSystem) -> None:
    await things.set("large", "x" * 100_000)
    async with client(valkey_url) as person:
        assert await person.memory_usage("escala:{tests}:e:things:=large") < 2000
    with acting_as(other):
        assert await things.get("large") == "x" * 100_000


async def test_a_value_that_is_too_large_is_not_kept(valkey_url: str) -> None:
    calls = []

    @things.cached(name=unique(), tags=["t"])
    async def load() -> bytes:
        calls.append(1)
        return bytes(range(256)) * 40

    async with system(valkey_url, value=1000, compress=10**9) as made, client(valkey_url) as person:
        with acting_as(made):
            assert len(await load()) == len(await load()) == 10240
            assert await person.keys("*:e:*") == []
            assert made.counts["things"].oversized == 1
            assert calls == [1]  # it is in L1, where an invalidation finds it
            async with system(valkey_url) as far:
                with acting_as(far):
                    await things.invalidate("t")
            await gone(made)
            await load()
            assert calls == [1, 1]
            with pytest.raises(ValueTooLarge, match=r"raise cache\.value"):
                await things.set("k", bytes(5000))
    async with system(valkey_url, value=1000, compress=10**9, bytes=20_000) as made:
        with acting_as(made):
            await load()
            await load()
            assert (len(made.levels.shared), len(calls)) == (0, 4)  # too large for L1, too


async def test_a_broken_subscription_switches_l1_off_and_on_again(connected: CacheSystem, valkey_url: str) -> None:
    load, _ = counted()
    await in_l1(load, connected)
    async with client(valkey_url) as person:
        await person.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await gone(connected)
    await on(connected)


async def test_a_broken_connection_for_commands_is_replaced(connected: CacheSystem, valkey_url: str) -> None:
    load, _ = counted()
    await in_l1(load, connected)
    async with client(valkey_url) as person:
        await person.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await load(2)
    await gone(connected)
    await on(connected)
    await things.set("a", 1)


@pytest.mark.parametrize("rubbish", [b"\xc1garbage", b"", b"\x01", b"\xff" * 1000])
async def test_an_unreadable_message_is_taken_as_one_that_concerns_everything(
    connected: CacheSystem, valkey_url: str, rubbish: bytes
) -> None:
    load, _ = counted(tags=["t"])
    await in_l1(load, connected)
    async with client(valkey_url) as person:
        await person.publish("escala:{tests}:bus", rubbish)
        await gone(connected)
        await in_l1(load, connected)
        await person.publish("escala:{tests}:bus", link.message(invalidated=["t:things:t"]))
        await gone(connected)


async def test_answers_are_bytes_whatever_the_url_asks_for(valkey_url: str) -> None:
    load, _ = counted(tags=["t"])
    async with system(f"{valkey_url}?decode_responses=true") as made:
        with acting_as(made):
            await load(1)
        await in_l1(load, made)


async def test_a_silent_valkey_switches_l1_off_within_a_second(connected: CacheSystem, valkey_url: str) -> None:
    """CLIENT PAUSE leaves the connections open and says nothing: a half-open socket looks like this."""
    load, calls = counted()
    await in_l1(load, connected)
    async with client(valkey_url) as person:
        await person.execute_command("CLIENT", "PAUSE", "2500", "ALL")
    paused = time.monotonic()

    async def off() -> bool:
        return time.monotonic() > connected.levels.shared.trusted_until

    await eventually(off, "L1 is not trusted", 5)
    assert time.monotonic() - paused < link.LEASE + 0.5

    async def down() -> bool:
        return not connected.connected

    await eventually(down, "the link is down", 5)
    assert (await load.lookup(1)).source == "loader"  # at once, not after Valkey's time-out
    assert calls == [1, 1]
    await on(connected)


async def test_l1_is_not_trusted_after_the_process_was_paused(connected: CacheSystem, other: CacheSystem) -> None:
    """A process whose event loop stood still has news waiting that it has not read yet."""
    load, _ = counted(tags=["t"])
    await in_l1(load, connected)
    invalidated = asyncio.create_task(_invalidate_in_a_thread(other))
    await asyncio.sleep(0)
    time.sleep(link.LEASE + 0.2)
    with acting_as(connected):
        assert (await load.lookup(1)).source != "l1"
    await invalidated


async def _invalidate_in_a_thread(made: CacheSystem) -> None:
    with acting_as(made):
        await things.invalidate("t")


async def test_without_valkey_values_live_for_a_second() -> None:
    load, _ = counted()
    async with system("unix:///nowhere/valkey.sock") as lonely:
        with acting_as(lonely):
            assert (await load.lookup(1)).source == "loader"
            assert (await load.lookup(1)).source == "l1"
            loaded = time.monotonic()

            async def again() -> bool:
                return bool((await load.lookup(1)).source == "loader")

            await eventually(again, "it is loaded again", 5)
            assert time.monotonic() - loaded < DEGRADED_SECONDS + 1
            assert await things.get("a") is None
            with pytest.raises(CacheUnavailable, match="the invalidation of things:t failed"):
                await things.invalidate("t")
            assert (await load.lookup(1)).source == "loader"  # invalid here in any case
            with pytest.raises(CacheUnavailable, match="storing things 'a' failed"):
                await things.set("a", 1)


async def test_without_a_url_only_l1_is_there() -> None:
    load, _ = counted()
    alone, _ = counted(Cache("alone", levels="l1"))
    async with system("") as made:
        with acting_as(made):
            with pytest.raises(
                NoValkey, match="no Valkey URL is configured in this process, and the cache things needs one"
            ):
                await load(1)
            with pytest.raises(NoValkey):
                await things.invalidate("t")
            assert (await alone.lookup(1)).source == "loader"
            assert (await alone.lookup(1)).source == "l1"


async def test_scripts_that_were_flushed_are_loaded_again(connected: CacheSystem, valkey_url: str) -> None:
    async with client(valkey_url) as person:
        await person.script_flush()
    await things.set("a", 1)
    assert await things.get("a") == 1


async def test_it_closes_at_any_moment(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    send = Socket.send
    for word in (b"LOAD", b"ID", b"TRACKING", b"SUBSCRIBE", b"PING", b"TIME"):
        closing: list[asyncio.Task[None]] = []
        made = CacheSystem(valkey_url, "tests")

        def close_as_it_is_sent(
            socket: Socket,
            *commands: Any,
            word: bytes = word,
            closing: list[asyncio.Task[None]] = closing,
            made: CacheSystem = made,
        ) -> None:
            send(socket, *commands)
            if word.decode() in commands[0] and not closing:
                closing.append(asyncio.create_task(made.close()))

        monkeypatch.setattr(Socket, "send", close_as_it_is_sent)
        await made.open()

        async def closed(closing: list[asyncio.Task[None]] = closing) -> bool:
            return bool(closing) and closing[0].done()

        await eventually(closed, f"it is closed as it sends {word!r}", 3)


async def test_the_fence_keeps_a_late_holder_out(connected: CacheSystem, other: CacheSystem, valkey_url: str) -> None:
    """A holder that lost its lock, as after a pause, does not write over the value of the next one."""
    level = connected.levels.l2
    assert level is not None
    address = Address("e:things:fenced", ("t:things",), "f")
    late = await level.begin(address)
    assert not isinstance(late, float)
    assert isinstance(await level.begin(address), float)
    async with client(valkey_url) as person:
        await person.delete("escala:{tests}:l:e:things:fenced")  # as when its time is over
    next_one = await level.begin(address)
    assert not isinstance(next_one, float)
    assert not await level.renew(address.name, late)
    await level.release(address.name, late)
    assert not await level.write(address, b"old", 60, right=late)
    assert await level.write(address, b"new", 60, right=next_one)
    found = await level.read(address)
    assert found is not None
    assert found.payload == b"new"


async def test_a_load_that_lost_its_place_leaves_the_right_of_the_next_one(connected: CacheSystem) -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    calls: list[int] = []

    @things.cached(name=unique())
    async def load() -> int:
        calls.append(1)
        number = len(calls)
        await gates[number - 1].wait()
        return number

    first = asyncio.create_task(load())
    await asyncio.sleep(0.1)
    await load.delete()
    second = asyncio.create_task(load())
    await asyncio.sleep(0.1)
    gates[0].set()
    assert await first == 1
    assert len(connected.loading._rights) == 1
    gates[1].set()
    assert await second == 2
    assert await load.lookup() == (2, "l2", False)
    assert connected.loading._rights == {}


async def test_a_load_does_not_last_longer_than_its_timeout(connected: CacheSystem, other: CacheSystem) -> None:
    """Another process has the right to load, and does nothing with it."""
    load, _ = counted(timeout="500ms")
    with acting_as(other):
        await load.lookup(1)
        await load.delete(1)
        level = other.levels.l2
        assert level is not None
        assert not isinstance(await level.begin(_request(load).address), float)
    began = time.monotonic()
    with pytest.raises(LoadTimedOut):
        await load(1)
    assert time.monotonic() - began < 2


async def test_one_lost_connection_does_not_fail_an_invalidation(connected: CacheSystem, valkey_url: str) -> None:
    async with client(valkey_url) as person:
        await person.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await things.invalidate("t")
    await things.set("a", 1)


async def test_a_cache_of_this_process_alone_tells_valkey_of_its_functions_that_are_not(
    connected: CacheSystem, other: CacheSystem
) -> None:
    load, calls = counted(Cache(unique("alone"), levels="l1"), levels="both")
    mixed = Cache(load.key(1).partition(":")[0], levels="l1")
    mixed.cached(name=unique(), levels="both")(load.__wrapped__)
    await load(1)
    await mixed.clear()
    with acting_as(other):
        await load(1)
    assert calls == [1, 1]


async def test_generations_in_use_do_not_expire(connected: CacheSystem, valkey_url: str) -> None:
    load, _ = counted()
    await load(1)
    async with client(valkey_url) as person:
        await person.expire("escala:{tests}:t:things", 100)
        await load(2)
        assert await person.ttl("escala:{tests}:t:things") > 1000


async def test_closing_ends_loads(valkey_url: str) -> None:
    ended: list[bool] = []

    @things.cached(name=unique())
    async def load() -> int:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)
        return 1

    async with system(valkey_url) as made:
        with acting_as(made):
            waiting = asyncio.create_task(load())
            await asyncio.sleep(0.1)
    assert ended == [True]
    with pytest.raises(LoadCancelled):
        await waiting


async def test_kept_exceptions_are_bounded(connected: CacheSystem) -> None:
    @things.cached(name=unique(), errors=(KeyError,), levels="l1")
    async def load(number: int) -> int:
        raise KeyError(number)

    for number in range(1100):
        with pytest.raises(KeyError):
            await load(number)
    assert len(connected.loading._errors) <= 1000


async def test_a_long_argument_is_not_kept_beside_the_value(connected: CacheSystem) -> None:
    @things.cached(name=unique())
    async def load(text: str) -> int:
        return len(text)

    async def in_memory() -> bool:
        return (await load.lookup("x" * 10_000)).source == "l1"

    await eventually(in_memory, "it is in L1", 5)
    assert connected.calls == {}
