"""`Cache` and `@cached`: a look-up asks L1 in the process, then L2 in Valkey, then the decorated function."""

import asyncio
import contextlib
import hashlib
import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import update_wrapper
from string import Formatter
from typing import Any, Generic, Literal, NamedTuple, ParamSpec, TypeVar, get_type_hints

import msgspec

from escala.cache.l1 import Entry
from escala.cache.l2 import MAX_TTL, Reading
from escala.cache.system import UNREACHABLE, CacheSystem, Load, slot
from escala.units import parse_duration

P = ParamSpec("P")
R = TypeVar("R")
Source = Literal["l1", "l2", "loader"]


class Lookup(NamedTuple, Generic[R]):
    """A value and the level that had it."""

    value: R
    source: Source


class Cache:
    """A named cache. Declaring one does no I/O; `escala.lifespan` connects it.

    ``flights = Cache("flights")``, then ``@flights.cached(ttl="60s", tags=["from:{origin}"])`` over an async function.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def cached(self, *, ttl: str, tags: Sequence[str] = ()) -> "Callable[[Callable[P, Awaitable[R]]], Cached[P, R]]":
        """Cache what an async function returns, by its arguments.

        `ttl` is a duration such as "60s", at most a day. `tags` are names to invalidate by; ``{argument}`` in one is
        replaced by the argument's value. Arguments and result must be values that msgspec encodes (numbers, texts,
        lists, dicts, dataclasses, dates, ...); the result is decoded by the function's return annotation. Callers
        share the result: treat it as read-only. Concurrent calls in one process share one load.
        """
        seconds = parse_duration(ttl)
        if seconds > MAX_TTL:
            raise ValueError(f"ttl {ttl!r} is longer than a day")

        def decorate(function: Callable[P, Awaitable[R]]) -> Cached[P, R]:
            return Cached(self, function, seconds, tuple(tags))

        return decorate

    async def invalidate(self, *tags: str) -> None:
        """Make every value under any of `tags` unservable in all replicas.

        When this returns, no look-up that starts in this process or reaches Valkey serves such a value; other
        processes' L1 follow within the time that one message takes. Raises CacheUnavailable where Valkey is away.
        """
        await slot.get().invalidate([self._tag(tag) for tag in tags])

    async def clear(self) -> None:
        """Invalidate all that this cache holds."""
        await slot.get().invalidate([self._tag("")])

    def _tag(self, tag: str) -> str:
        return f"{self.name}:{tag}"

    def tags_of(self, templates: Sequence[str], arguments: dict[str, Any]) -> tuple[str, ...]:
        """Return the tags of one entry; the first is the one that all entries of this cache have."""
        return (self._tag(""), *(self._tag(template.format(**arguments)) for template in templates))


class Cached(Generic[P, R]):
    """A function whose results are cached. Call it as before, or `lookup` to learn which level answered."""

    def __init__(self, cache: Cache, function: Callable[P, Awaitable[R]], ttl: float, tags: tuple[str, ...]) -> None:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"{function!r} is not an async function")
        update_wrapper(self, function)
        self._cache = cache
        self._function = function
        self._ttl = ttl
        self._tags = tags
        self._signature = inspect.signature(function)
        self._name = f"{cache.name}:{function.__module__}.{function.__qualname__}"
        self._decoder: msgspec.msgpack.Decoder[Any] | None = None
        if next(iter(self._signature.parameters), "") in ("self", "cls"):
            raise TypeError(f"{self._name}: a method's first argument is no part of a key; cache a function")
        unknown = {part for tag in tags for part in _fields(tag)} - set(self._signature.parameters)
        if unknown:
            names = ", ".join(sorted(unknown)) or "nothing"
            raise TypeError(f"{self._name}: tags name {names}, which is no argument")

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return (await self.lookup(*args, **kwargs)).value

    async def lookup(self, *args: P.args, **kwargs: P.kwargs) -> Lookup[R]:
        """Return the value with the level it came from: "l1", "l2" or "loader"."""
        return await self._lookup(slot.get(), self._signature.bind(*args, **kwargs))

    async def _lookup(self, system: CacheSystem, bound: inspect.BoundArguments) -> Lookup[R]:
        bound.apply_defaults()
        key = self._key(bound.arguments)
        entry = system.l1.get(key)
        if entry is not None:
            system.counts["l1"] += 1
            return Lookup(entry.value, "l1")
        tags = self._cache.tags_of(self._tags, bound.arguments)
        load = system.loads.get(key)
        if load is None or not system.l1.is_current(load.tags, load.ticket):
            load = self._begin(system, key, tags, bound)
        # Shielded: one caller that gives up must not take the value from the others.
        found: Lookup[R] = await asyncio.shield(load.task)
        system.counts[found.source] += 1
        return found

    def _begin(self, system: CacheSystem, key: str, tags: tuple[str, ...], bound: inspect.BoundArguments) -> Load:
        ticket = system.l1.ticket()
        task = asyncio.create_task(self._load(system, key, tags, ticket, bound))
        load = system.loads[key] = Load(task, tags, ticket)

        def forget(_: asyncio.Task[Any]) -> None:
            if system.loads.get(key) is load:
                del system.loads[key]

        task.add_done_callback(forget)
        return load

    async def _load(
        self, system: CacheSystem, key: str, tags: tuple[str, ...], ticket: int, bound: inspect.BoundArguments
    ) -> Lookup[R]:
        reading = await self._read(system, key, tags)
        if reading is not None and reading.payload is not None:
            value = self._decode(reading.payload)
            system.l1.put(key, Entry(value, time.monotonic() + reading.seconds_left, tags), ticket)
            return Lookup(value, "l2")
        # Encoded and decoded, so that a caller gets the same types from the loader as from either level.
        payload = msgspec.msgpack.encode(await self._function(*bound.args, **bound.kwargs))
        value = self._decode(payload)
        if reading is not None:
            system.l1.put(key, Entry(value, time.monotonic() + self._ttl, tags), ticket)
            with contextlib.suppress(*UNREACHABLE):  # the value is good, only not shared
                await system.l2.write(key, payload, reading.generations, self._ttl)
        return Lookup(value, "loader")

    async def _read(self, system: CacheSystem, key: str, tags: tuple[str, ...]) -> Reading | None:
        if not system.connected:
            return None
        try:
            return await system.l2.read(key, tags)
        except UNREACHABLE:
            return None

    def _key(self, arguments: dict[str, Any]) -> str:
        digest = hashlib.blake2b(msgspec.msgpack.encode(list(arguments.values())), digest_size=16)
        return f"{self._name}:{digest.hexdigest()}"

    def _decode(self, payload: bytes) -> R:
        if self._decoder is None:
            self._decoder = msgspec.msgpack.Decoder(get_type_hints(self._function).get("return", Any))
        value: R = self._decoder.decode(payload)
        return value


def _fields(template: str) -> set[str]:
    return {name.split(".")[0].split("[")[0] for _, name, _, _ in Formatter().parse(template) if name is not None}
