"""What every cache does, whichever levels it has."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import date
from enum import Enum
from typing import Any

import pytest

from escala.cache import Cache, CacheSystem, Options
from escala.cache.policy import Levels
from escala.errors import EscalaError, LoadCancelled, LoadTimedOut, RecursiveLoad
from tests.cache.systems import unique
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("connected")


@pytest.fixture(params=["both", "l1", "l2"])
def things(request: pytest.FixtureRequest) -> Cache:
    levels: Levels = request.param
    return Cache(unique("things"), levels=levels, jitter=0)


class Counted:
    """A cached function that counts its calls."""

    def __init__(self, cache: Cache, **options: Any) -> None:
        self.calls: list[int] = []
        self.fails: Exception | None = None

        @cache.cached(name=unique(), **options)
        async def load(number: int) -> dict[str, int] | None:
            self.calls.append(number)
            if self.fails is not None:
                raise self.fails
            return {"number": number, "call": len(self.calls)} if number else None

        self.load = load


async def test_a_value_is_loaded_once(things: Cache) -> None:
    counted = Counted(things)
    assert (await counted.load.lookup(1)).source == "loader"
    assert (await counted.load.lookup(1)).source != "loader"
    assert await counted.load(1) == {"number": 1, "call": 1}
    await counted.load(2)
    assert counted.calls == [1, 2]


async def test_none_is_a_value(things: Cache) -> None:
    counted = Counted(things)
    assert await counted.load(0) is None
    assert await counted.load(0) is None
    assert counted.calls == [0]


async def test_arguments_by_name_or_place_are_the_same_call(things: Cache) -> None:
    @things.cached(name=unique())
    async def load(first: int, second: int = 2, *, third: str = "x") -> int:
        return first + second

    assert (await load.lookup(1)).source == "loader"
    for found in (load.lookup(first=1), load.lookup(second=2, first=1), load.lookup(1, 2, third="x")):
        assert (await found).source != "loader"
    assert (await load.lookup(True)).source == "loader"
    assert [await load(1), await load(first=1), await load(True), await load(True)] == [3, 3, 3, 3]


async def test_any_number_of_arguments(things: Cache) -> None:
    @things.cached(name=unique())
    async def load(*numbers: int, **names: str) -> str:
        return f"{numbers}{names}"

    for args, kwargs in (((1, 2), {}), (((1, 2),), {}), ((1,), {"a": "x"}), ((), {"a": "x"})):
        assert await load(*args, **kwargs) == await load(*args, **kwargs) == f"{args}{kwargs}"


async def test_callers_do_not_share_what_they_can_change(things: Cache) -> None:
    counted = Counted(things)
    for _ in range(4):
        found = await counted.load(1)
        assert found == {"number": 1, "call": 1}
        found.clear()


async def test_invalidation_by_tag(things: Cache) -> None:
    counted = Counted(things, tags=["n:{number}", "all"])
    await counted.load(1)
    await counted.load(2)
    await things.invalidate("n:{number}", number=1)
    assert (await counted.load.lookup(1)).source == "loader"
    assert (await counted.load.lookup(2)).source != "loader"
    assert counted.calls == [1, 2, 1]
    await things.invalidate("all")
    assert (await counted.load.lookup(2)).source == "loader"
    await things.clear()
    assert (await counted.load.lookup(2)).source == "loader"


async def test_clearing_a_cache_leaves_others(things: Cache) -> None:
    counted, other = Counted(things), Counted(Cache(unique("other"), levels=things.policy.levels))
    await counted.load(1)
    await other.load(1)
    await things.clear()
    assert (await counted.load.lookup(1)).source == "loader"
    assert (await other.load.lookup(1)).source != "loader"


async def test_one_value_is_deleted(things: Cache) -> None:
    counted = Counted(things)
    await counted.load(1)
    await counted.load(2)
    await counted.load.delete(number=1)
    assert (await counted.load.lookup(1)).source == "loader"
    assert (await counted.load.lookup(2)).source != "loader"


async def test_values_by_key(things: Cache) -> None:
    assert await things.get("a", default="nothing") == "nothing"
    await things.set("a", {"day": date(2013, 1, 1)}, tags=["days"])
    await things.set("b", None)
    assert await things.get_many(["a", "b", "c"]) == {"a": {"day": date(2013, 1, 1)}, "b": None}
    assert await things.get("b", default="nothing") is None
    await things.set("a", [2])
    assert await things.get("a") == [2]
    await things.set("a", 3, tags=["days"])
    await things.invalidate("days")
    assert await things.get("a") is None
    await things.delete("b", "never")
    assert await things.get_many(["a", "b"]) == {}


async def test_a_key_has_a_value_for_each_type(things: Cache) -> None:
    await things.set("a", date(2013, 1, 1), type=date)
    assert await things.get("a", type=date) == date(2013, 1, 1)
    assert await things.get("a", type=str) is None
    await things.set("a", "text", type=str)
    if things.policy.uses_l2:  # what was set last counts, for whoever asks
        assert await things.get("a", type=date) is None
    with pytest.raises(TypeError, match="Expected `str`"):
        await things.set("a", 1, type=str)


async def test_get_or_load(things: Cache) -> None:
    async def loader() -> int:
        calls.append(1)
        await asyncio.sleep(0.01)
        return len(calls)

    calls: list[int] = []
    assert await asyncio.gather(*(things.get_or_load("k", loader, tags=["t"]) for _ in range(10))) == [1] * 10
    assert await things.get("k") == 1
    await things.invalidate("t")
    assert await things.get_or_load("k", loader, tags=["t"]) == 2


async def test_concurrent_calls_share_one_load(things: Cache) -> None:
    counted = Counted(things)
    await asyncio.gather(*(counted.load(7) for _ in range(200)))
    assert counted.calls == [7]


async def test_a_caller_that_gives_up_does_not_take_the_value_from_others(things: Cache) -> None:
    go = asyncio.Event()

    @things.cached(name=unique())
    async def load() -> int:
        await go.wait()
        return 1

    impatient = asyncio.create_task(load())
    patient = asyncio.create_task(load())
    await asyncio.sleep(0.05)
    impatient.cancel()
    go.set()
    assert await patient == 1


async def test_a_failing_loader_fails_its_callers_and_is_tried_again(things: Cache) -> None:
    counted = Counted(things)
    counted.fails = ValueError("no")
    found = await asyncio.gather(*(counted.load(1) for _ in range(5)), return_exceptions=True)
    assert [str(each) for each in found] == ["no"] * 5
    assert counted.calls == [1]
    counted.fails = None
    assert await counted.load(1) == {"number": 1, "call": 2}


async def test_exceptions_are_kept_only_where_asked_for(things: Cache) -> None:
    counted = Counted(things, errors=(KeyError,), errors_ttl="10s")
    counted.fails = KeyError("gone")
    for _ in range(3):
        with pytest.raises(KeyError, match="gone"):
            await counted.load(1)
    assert counted.calls == [1]
    await counted.load.delete(1)
    counted.fails = ValueError("no")
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await counted.load(1)
    assert counted.calls == [1, 1, 1]


async def test_a_load_that_hangs_ends(things: Cache) -> None:
    """One lost await must not poison a key, even if the loader does not let itself be cancelled."""
    calls: list[int] = []
    release = asyncio.Event()

    @things.cached(name=unique(), timeout="100ms")
    async def load() -> int:
        calls.append(1)
        while len(calls) == 1 and not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
        return len(calls)

    found = await asyncio.gather(load(), load(), return_exceptions=True)
    assert [type(each) for each in found] == [LoadTimedOut] * 2
    assert await load() == 2
    release.set()


async def test_a_loader_that_cancels_itself_fails_its_callers(things: Cache) -> None:
    @things.cached(name=unique())
    async def load() -> int:
        raise asyncio.CancelledError

    with pytest.raises(LoadCancelled):
        await load()


async def test_a_function_that_asks_for_its_own_result_is_told(things: Cache) -> None:
    @things.cached(name=unique())
    async def load(number: int) -> int:
        return await load(number - 1 if number > 1 else 1)

    with pytest.raises(RecursiveLoad, match="asked for its own result"):
        await load(3)

    @things.cached(name=unique())
    async def fine(number: int) -> int:
        return number + (await fine(number - 1) if number else 0)

    assert await fine(10) == 55


async def test_functions_that_wait_for_each_other_are_told(things: Cache) -> None:
    both = asyncio.Barrier(2)
    calls = 0

    async def meet() -> None:
        nonlocal calls
        calls += 1
        if calls <= 2:
            await both.wait()

    @things.cached(name=unique())
    async def one() -> int:
        await meet()
        return await other()

    @things.cached(name=unique())
    async def other() -> int:
        await meet()
        return await one()

    async with asyncio.timeout(10):
        found = await asyncio.gather(one(), other(), return_exceptions=True)
    assert {type(each) for each in found} == {RecursiveLoad}


async def test_what_a_load_leaves_behind_may_ask_for_its_result(things: Cache) -> None:
    later: list[asyncio.Task[int]] = []

    @things.cached(name=unique())
    async def load() -> int:
        async def afterwards() -> int:
            await asyncio.sleep(0.05)
            return await load()

        later.append(asyncio.create_task(afterwards()))
        return 1

    assert await load() == 1
    assert await later[0] == 1


@pytest.mark.parametrize("options", [{"ttl": "80ms"}, {"negative_ttl": "80ms"}])
async def test_ttl(things: Cache, options: Options) -> None:
    counted = Counted(things, **options)
    number = 1 if "ttl" in options else 0
    await counted.load(number)
    assert len(counted.calls) == 1

    async def loaded_again() -> bool:
        await counted.load(number)
        return len(counted.calls) == 2

    await eventually(loaded_again, "the entry expires", 5)


async def until(counted: Counted, condition: Callable[[Any], bool]) -> Any:
    """Look up again and again until the lookup is as wanted."""

    async def met() -> Any:
        found = await counted.load.lookup(1)
        return found if condition(found) else None

    return await eventually(met, "the lookup", 5)


async def test_a_stale_value_is_returned_while_a_new_one_is_loaded(things: Cache) -> None:
    counted = Counted(things, ttl="100ms", stale="10s")
    await counted.load(1)
    stale = await until(counted, lambda found: found.stale)
    assert stale.value["call"] == 1
    await until(counted, lambda found: found.value["call"] == 2 and not found.stale)


async def test_a_stale_value_is_returned_if_loading_fails(things: Cache) -> None:
    counted = Counted(things, ttl="100ms", stale_if_error="300ms")
    await counted.load(1)
    counted.fails = OSError("no database")
    found = await until(counted, lambda found: len(counted.calls) > 1)
    assert found.value["call"] == 1

    async def over() -> bool:
        try:
            await counted.load(1)
        except OSError:
            return True
        return False

    await eventually(over, "the limit is reached", 5)


async def test_a_caller_waits_a_moment_for_a_new_value(things: Cache) -> None:
    go = asyncio.Event()
    calls: list[int] = []

    @things.cached(name=unique(), ttl="50ms", stale="10s", soft_timeout="5s")
    async def load() -> int:
        calls.append(1)
        if len(calls) == 3:
            await go.wait()
        return len(calls)

    assert await load() == 1
    await asyncio.sleep(0.1)
    assert await load() == 2  # not the stale one: loading is fast enough
    await asyncio.sleep(0.1)

    @things.cached(name=unique(), ttl="50ms", stale="10s", soft_timeout="10ms")
    async def slow() -> int:
        calls.append(1)
        if len(calls) > 3:
            await go.wait()
        return len(calls)

    assert await slow() == 3
    await asyncio.sleep(0.1)
    assert await slow() == 3  # loading takes longer than 10 ms
    go.set()


async def test_a_value_in_use_is_loaded_anew_before_it_expires(things: Cache) -> None:
    counted = Counted(things, ttl="10s", early=0.01)
    await counted.load(1)
    found = await until(counted, lambda found: found.value["call"] > 1)
    assert not found.stale


async def test_an_unconnected_cache_says_so(things: Cache) -> None:
    from escala.cache import slot

    counted = Counted(things)
    before, slot.value = slot.value, None
    try:
        with pytest.raises(EscalaError, match="lifespan"):
            await counted.load(1)
    finally:
        slot.value = before


async def test_counts(things: Cache, connected: CacheSystem) -> None:
    counted = Counted(things)
    for _ in range(4):
        await counted.load(1)
    await things.clear()
    counts = connected.counts[things.name]
    assert (counts.loader, counts.loads, counts.l1 + counts.l2, counts.invalidations) == (1, 1, 3, 1)


async def test_callers_of_one_load_do_not_share_its_value(things: Cache) -> None:
    counted = Counted(things)
    one, other = await asyncio.gather(counted.load(1), counted.load(1))
    assert one == other
    assert one is not other


async def test_loads_of_different_types_are_different_loads(things: Cache) -> None:
    async def number() -> int:
        await asyncio.sleep(0.01)
        return 1

    async def text() -> str:
        await asyncio.sleep(0.01)
        return "x"

    one, other = await asyncio.gather(
        things.get_or_load("k", number, type=int), things.get_or_load("k", text, type=str)
    )
    assert (one, other) == (1, "x")


async def test_what_is_set_counts_at_once(things: Cache) -> None:
    go = asyncio.Event()

    async def slow() -> str:
        await go.wait()
        return "old"

    loading = asyncio.create_task(things.get_or_load("k", slow))
    await asyncio.sleep(0.05)
    await things.set("k", "new")
    assert await things.get("k") == "new"
    go.set()
    await loading
    assert await things.get("k") == "new"


async def test_the_reader_does_not_make_a_value_fresh(things: Cache) -> None:
    await things.set("k", 1, ttl="50ms", stale="10s")
    await asyncio.sleep(0.1)
    assert await things.get("k") is None


async def test_a_kept_exception_does_not_outlive_what_made_it(things: Cache) -> None:
    counted = Counted(things, tags=["t"], errors=(KeyError,), errors_ttl="10s")
    counted.fails = KeyError("gone")
    ways: list[Callable[[], Any]] = [lambda: things.invalidate("t"), things.clear, lambda: counted.load.delete(1)]
    for invalidate in ways:
        with pytest.raises(KeyError):
            await counted.load(1)
        counted.fails = None
        await invalidate()
        await counted.load(1)
        await things.clear()
        counted.fails = KeyError("gone")

    async def lost() -> int:
        raise KeyError("lost")

    with pytest.raises(KeyError):
        await things.get_or_load("k", lost, errors=(KeyError,))
    await things.set("k", 1)
    assert await things.get_or_load("k", lost, errors=(KeyError,)) == 1


async def test_an_exception_that_a_load_made_of_an_old_state_is_not_kept(things: Cache) -> None:
    go = asyncio.Event()
    calls: list[int] = []

    @things.cached(name=unique(), tags=["t"], errors=(KeyError,), errors_ttl="10s")
    async def load() -> int:
        calls.append(1)
        if len(calls) == 1:
            await go.wait()
            raise KeyError("old")
        return 1

    first = asyncio.create_task(load())
    await asyncio.sleep(0.05)
    await things.invalidate("t")
    go.set()
    with pytest.raises(KeyError):
        await first
    assert await load() == 1


async def test_an_old_value_is_better_than_a_kept_exception(things: Cache) -> None:
    counted = Counted(things, ttl="30ms", stale="10s", errors=(OSError,), errors_ttl="10s")
    await counted.load(1)
    counted.fails = OSError("no")
    for _ in range(10):
        assert (await counted.load(1)) == {"number": 1, "call": 1}
        await asyncio.sleep(0.01)


async def test_a_soft_timeout_that_ends_in_an_error_gives_the_old_value(things: Cache) -> None:
    counted = Counted(things, ttl="30ms", stale="10s", soft_timeout="5s")
    await counted.load(1)
    counted.fails = OSError("no")
    await asyncio.sleep(0.05)
    assert (await counted.load(1)) == {"number": 1, "call": 1}


async def test_none_is_not_refreshed_early_all_the_time(things: Cache) -> None:
    counted = Counted(things, ttl="60s", negative_ttl="10s", early=0.5)
    for _ in range(10):
        await counted.load(0)
    assert counted.calls == [0]


async def test_a_fresh_value_does_not_wait_for_its_early_refresh(things: Cache) -> None:
    go = asyncio.Event()
    calls: list[int] = []

    @things.cached(name=unique(), ttl="10s", early=0.001, soft_timeout="5s")
    async def load() -> int:
        calls.append(1)
        if len(calls) > 1:
            await go.wait()
        return len(calls)

    await load()
    await asyncio.sleep(0.05)
    async with asyncio.timeout(2):
        assert [await load() for _ in range(5)] == [1] * 5
    go.set()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda c: c.cached(tags="abc"), "tags must be a list"),
        (lambda c: c.cached(key="a"), "key must be a list"),
        (lambda c: c.response(vary="accept"), "vary must be a list"),
        (lambda c: c.response(paths="/x"), "paths must be a list"),
        (lambda c: c.response(tags=["i:{id}"]), "may only refer to {path}"),
        (lambda c: c.response(soft_timeout="1s"), "soft_timeout is not an option"),
        (lambda c: c.cached(tags=[f"t{number}" for number in range(300)], name="many")(_many), "has 300 tags"),
    ],
)
async def test_wrong_calls_are_refused_at_once(things: Cache, call: Callable[[Cache], Any], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        call(things)


async def _many() -> int:
    return 1


async def test_wrong_calls_are_refused(things: Cache) -> None:
    wrong: list[tuple[Any, str]] = [
        (things.set("k", 1, tags="abc"), "tags must be a list"),
        (things.set("k", 1, levels="l1"), "levels is an option of the whole cache"),
        (things.set("k", 1, tags=[f"t{number}" for number in range(300)]), "300 tags"),
        (things.get("\ud800"), "not valid Unicode"),
        (things.invalidate("\ud800"), "not valid Unicode"),
        (things.delete(5), "a key must be a str, not 5"),  # type: ignore[arg-type]
        (things.invalidate(5), "a tag must be a str, not 5"),  # type: ignore[arg-type]
        (things.get_or_load("k", lambda: 1), "must be an async function"),  # type: ignore[arg-type, return-value]
    ]
    for work, says in wrong:
        with pytest.raises((TypeError, ValueError), match=says):
            await work


async def test_tags_of_any_spelling(things: Cache) -> None:
    class Origin(Enum):
        JFK = "JFK"

    ways: list[Callable[[], Any]] = [
        lambda: things.invalidate("{self}", self="JFK"),
        lambda: things.invalidate(Origin.JFK),  # type: ignore[arg-type]
        lambda: things.invalidate("{o}", o=Origin.JFK),
    ]
    for invalidate in ways:
        await things.set("k", 1, tags=["JFK"])
        await invalidate()
        assert await things.get("k") is None


async def test_arguments_may_change_while_a_value_is_loaded(things: Cache) -> None:
    go = asyncio.Event()

    @things.cached(name=unique())
    async def total(numbers: list[int]) -> int:
        await go.wait()
        return sum(numbers)

    numbers = [1, 2]
    loading = asyncio.create_task(total(numbers))
    await asyncio.sleep(0.01)
    numbers.append(100)
    go.set()
    assert await loading == 3
    assert await total([1, 2]) == 3


async def test_an_old_value_that_serves_after_an_error_is_called_stale(things: Cache) -> None:
    counted = Counted(things, ttl="30ms", stale_if_error="10s")
    await counted.load(1)
    counted.fails = OSError("no")
    await asyncio.sleep(0.05)
    assert [(await counted.load.lookup(1)).stale for _ in range(4)] == [True] * 4


async def test_calls_that_name_nothing_are_refused(things: Cache) -> None:
    wrong: list[tuple[Any, str]] = [
        (things.invalidate(), "name at least one tag"),
        (things.delete(), "name at least one key"),
        (things.invalidate("from:{origin}"), "has a placeholder"),
        (things.set("k", 1, tags=["from:{origin}"]), "has a placeholder"),
        (things.invalidate("from:{origin}", dest=1), "name origin, which is not among the arguments"),
        (things.invalidate("from:{origin}", origin=1, dest=1), "no tag names the argument dest"),
        (things.get_many("abc"), "keys must be a list"),
    ]
    for work, says in wrong:
        with pytest.raises((TypeError, ValueError), match=says):
            await work
    with pytest.raises(ValueError, match="begins with neither"):
        things.response(paths=["catalog"])
    await things.set("k", 1, tags=['{"a": 1}'])
    await things.invalidate('{"a": 1}')
    assert await things.get("k") is None


async def test_tags_of_what_the_key_leaves_out(things: Cache) -> None:
    class Order:
        def __init__(self, number: int, customer: str) -> None:
            self.number, self.customer = number, customer

    @things.cached(name=unique(), key=["order.number"], tags=["by:{order.customer}"])
    async def load(order: Any) -> str:
        return str(order.customer)

    assert [await load(Order(1, name)) for name in "ABAB"] == list("ABAB")


async def test_a_load_does_not_wait_for_one_that_is_invalid(things: Cache) -> None:
    go = asyncio.Event()
    calls: list[int] = []

    @things.cached(name=unique(), tags=["t"])
    async def load() -> int:
        calls.append(1)
        if len(calls) == 1:
            await go.wait()
        return len(calls)

    first = asyncio.create_task(load())
    await asyncio.sleep(0.1)
    await things.invalidate("t")
    async with asyncio.timeout(2):
        assert await load() == 2
    go.set()
    await first
    assert await load() == 2
