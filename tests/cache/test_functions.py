"""What can be cached: async and plain functions, and methods of both kinds."""

import asyncio
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from escala.cache import Cache, CacheSystem
from escala.errors import CalledOnLoop, LoadTimedOut
from tests.cache.systems import unique

pytestmark = pytest.mark.usefixtures("connected")

things = Cache("things")


class Item(BaseModel):
    name: str
    price: Decimal


class Shop:
    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0
        self.lock = threading.Lock()  # no part of the key, and none that could be

    @things.cached(key=["self.name", "number"], tags=["shop:{self.name}"])
    async def item(self, number: int, note: object = None) -> Item:
        self.calls += 1
        return Item(name=f"{self.name}{number}", price=Decimal("1.10"))

    @things.cached(key=["self.name"])
    def plain(self) -> str:
        self.calls += 1
        return self.name

    @classmethod
    @things.cached()
    async def of_class(cls) -> str:
        return cls.__name__

    @staticmethod
    @things.cached()
    async def static(number: int) -> int:
        return number

    @things.cached(key=["self.name"])
    async def itself(self) -> "Address":
        return Address(self.name)


class Branch(Shop):
    pass


@dataclass(frozen=True)
class Address:
    street: str

    @things.cached(key=["self"])
    async def twin(self) -> "Address":
        return self


async def test_methods() -> None:
    one, twin, other, branch = Shop("a"), Shop("a"), Shop("b"), Branch("a")
    assert await one.item(1, note=threading.Lock()) == Item(name="a1", price=Decimal("1.10"))
    assert (await twin.item(1)).name == "a1"
    assert (await other.item(number=1)).name == "b1"
    assert (await branch.item(1)).name == "a1"
    assert [shop.calls for shop in (one, twin, other, branch)] == [1, 0, 1, 1]
    assert (await one.item.lookup(1)).source != "loader"
    assert one.item.key(1) == twin.item.key(1) != other.item.key(1)
    await one.item.delete(1)
    await things.invalidate("shop:b")
    assert (await twin.item.lookup(1)).source == "loader"
    assert (await other.item.lookup(1)).source == "loader"
    assert inspect.signature(Shop.item).parameters.keys() == {"self", "number", "note"}


async def test_class_and_static_methods() -> None:
    shop: Any = Shop  # mypy takes a classmethod of what is no function for an instance's
    branch: Any = Branch
    for _ in range(2):
        assert (await shop.of_class(), await branch.of_class(), await shop("a").static(1)) == ("Shop", "Branch", 1)


async def test_a_method_may_return_a_class_that_comes_later() -> None:
    assert await Shop("a").itself() == Address("a") == await Shop("a").itself()


async def test_plain_functions_in_threads(connected: CacheSystem) -> None:
    calls: list[int] = []

    @things.cached(name=unique(), tags=["plain"])
    def load(number: int) -> list[int]:
        calls.append(number)
        return [number]

    with ThreadPoolExecutor(20) as pool:

        async def ask(work: Any, *arguments: Any) -> Any:
            return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)

        assert await asyncio.gather(*(ask(load, 1) for _ in range(20))) == [[1]] * 20
        assert calls == [1]
        for _ in range(5):
            (await ask(load, 1)).append(2)
        assert (await ask(load.lookup, 1)) == ([1], "l1", False)
        await ask(load.delete, 1)
        assert (await ask(load.lookup, 1)).source == "loader"
        assert await ask(Shop("a").plain) == "a"
        await things.invalidate("plain")
        assert (await ask(load.lookup, 1)).source == "loader"
    assert calls == [1, 1, 1]


async def test_plain_functions_that_call_one_another_need_no_pool() -> None:
    """More callers than any pool has threads, each of which waits for another load."""

    @things.cached(name=unique())
    def inner(number: int) -> int:
        return number

    @things.cached(name=unique())
    def outer(number: int) -> int:
        return inner(number) + 1

    with ThreadPoolExecutor(50) as pool:
        found = [asyncio.get_running_loop().run_in_executor(pool, outer, number) for number in range(50)]
        assert await asyncio.gather(*found) == list(range(1, 51))


async def test_a_plain_function_is_not_called_on_the_event_loop() -> None:
    @things.cached(name=unique())
    def load() -> int:
        return 1

    with pytest.raises(CalledOnLoop, match="call it in a thread"):
        load()


async def test_an_exception_of_a_plain_function_reaches_its_callers() -> None:
    class Panic(BaseException):
        pass

    @things.cached(name=unique())
    def load(fail: int) -> int:
        raise Panic("boom") if fail else ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await asyncio.to_thread(load, 0)
    with pytest.raises(Panic):
        await asyncio.to_thread(load, 1)


async def test_a_plain_function_that_stops_an_iteration(connected: CacheSystem) -> None:
    @things.cached(name=unique())
    def load() -> int:
        return next(iter([]))

    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.to_thread(load)


async def test_a_plain_function_that_is_too_slow(connected: CacheSystem) -> None:
    go = threading.Event()

    @things.cached(name=unique(), timeout="50ms")
    def load() -> int:
        go.wait(10)
        return 1

    with pytest.raises(LoadTimedOut):
        await asyncio.to_thread(load)
    go.set()
    assert await asyncio.to_thread(load) == 1


async def test_a_function_can_be_called_from_another_event_loop() -> None:
    @things.cached(name=unique())
    async def load(number: int) -> int:
        return number

    def elsewhere() -> list[int]:
        async def ask() -> list[int]:
            return [await load(1), await load(1), await load(1)]

        with asyncio.Runner() as runner:
            return runner.run(ask())

    assert await asyncio.to_thread(elsewhere) == [1, 1, 1]


async def test_arguments_of_any_name() -> None:
    @things.cached(name=unique())
    async def load(
        slot: int,
        type: str,  # noqa: A002
        Exception: int = 0,  # noqa: A002, N803
        mark: int = 3,
        _private: int = 4,
        *,
        call: list[int] | None = None,
    ) -> str:
        return f"{slot}{type}{mark}{_private}{call}"

    for _ in range(3):
        assert await load(1, "a") == "1a34None"
        assert await load(1, type="a", call=[1]) == "1a34[1]"
    with pytest.raises(TypeError, match="missing"):
        await load(1)  # type: ignore[call-arg]


async def test_the_function_looks_like_the_original() -> None:
    @things.cached(name=unique())
    async def load(number: int, word: str = "x") -> int:
        """Load it."""
        return number

    assert inspect.iscoroutinefunction(load)
    assert inspect.signature(load) == inspect.signature(inspect.unwrap(load))
    assert (load.__name__, load.__doc__) == ("load", "Load it.")  # type: ignore[attr-defined]


async def test_an_argument_that_cannot_be_part_of_a_key_is_named(connected: CacheSystem) -> None:
    calls = []

    @things.cached(name=unique("named"))
    async def load(thing: object) -> int:
        calls.append(1)
        return 1

    with pytest.raises(TypeError, match=r"named\d+: builtins.object has no fields .* key=\["):
        await load(object())
    assert calls == []


async def test_a_result_of_another_type_is_refused() -> None:
    @things.cached(name=unique())
    async def load() -> int:
        return "1"  # type: ignore[return-value]

    with pytest.raises(TypeError, match="declared as <class 'int'> cannot be kept: Expected `int`"):
        await load()
