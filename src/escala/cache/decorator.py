"""`Cache` and `@cached`: a lookup asks L1 in the process, then L2 in Valkey, then the decorated function (loader)."""

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
    """A value and its source: the level that had it, or "loader"."""

    value: R
    source: Source


class Cache:
    """A named cache. Creating one does no I/O; `escala.lifespan` or `escala.running` connects it.

    ``flights = Cache("flights")``, then ``@flights.cached(ttl="60s", tags=["from:{origin}"])`` on an async function.

    `name` separates this cache's keys and tags from those of other caches of the project. Services that use the same
    name share the tags, so each can invalidate the values of the others.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def cached(self, *, ttl: str, tags: Sequence[str] = ()) -> "Callable[[Callable[P, Awaitable[R]]], Cached[P, R]]":
        """Return a decorator that caches the results of an async function by its arguments.

        `ttl` is a duration with a unit, such as "60s"; the maximum is one day. `tags` are names to invalidate by;
        ``{argument}`` in a tag is replaced by the argument's value. The decorator returns a `Cached`, which is called
        like the function.

        Arguments and result must be values that msgspec can encode: numbers, strings, lists, dicts, dataclasses, dates
        and so on. The result is decoded to the function's return annotation. Callers share the result: treat it as
        read-only. Concurrent calls with the same arguments in one process share one load. If Valkey is unavailable, a
        call runs the function.

        Raises ValueError if `ttl` is not a duration or is longer than a day. The decorator raises TypeError if the
        function is not async, is a method, or lacks an argument that a tag names. A call raises NotConnected before the
        cache is connected, and every exception of the function.
        """
        seconds = parse_duration(ttl)
        if seconds > MAX_TTL:
            raise ValueError(f"ttl {ttl!r} is longer than a day")

        def decorate(function: Callable[P, Awaitable[R]]) -> Cached[P, R]:
            return Cached(self, function, seconds, tuple(tags))

        return decorate

    async def invalidate(self, *tags: str) -> None:
        """Invalidate every value of this cache that has any of `tags`, in all replicas.

        `tags` are complete names, without placeholders. After this returns, no lookup that starts in this process or
        that reaches Valkey returns such a value. The L1 of another process drops it as soon as one message arrives.

        Raises CacheUnavailable if Valkey is unavailable, and NotConnected before the cache is connected.
        """
        await slot.get().invalidate([self._tag(tag) for tag in tags])

    async def clear(self) -> None:
        """Invalidate every value of this cache, in all replicas. Raises the same errors as `invalidate`."""
        await slot.get().invalidate([self._tag("")])

    def _tag(self, tag: str) -> str:
        return f"{self.name}:{tag}"

    def tags_of(self, templates: Sequence[str], arguments: dict[str, Any]) -> tuple[str, ...]:
        """Return the tags of one entry. All entries of this cache share the first tag."""
        return (self._tag(""), *(self._tag(template.format(**arguments)) for template in templates))


class Cached(Generic[P, R]):
    """A function whose results are cached.

    Call it like the original function. Use `lookup` instead to learn which level answered.
    """

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
            raise TypeError(f"{self._name}: a method cannot be cached, because of its first argument; cache a function")
        unknown = {part for tag in tags for part in _fields(tag)} - set(self._signature.parameters)
        if unknown:
            names = ", ".join(sorted(unknown)) or "nothing"
            raise TypeError(f"{self._name}: its tags name {names}, which the function does not have as an argument")

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return (await self.lookup(*args, **kwargs)).value

    async def lookup(self, *args: P.args, **kwargs: P.kwargs) -> Lookup[R]:
        """Return the value together with its source: "l1", "l2" or "loader".

        Raises NotConnected before the cache is connected, and every exception of the function.
        """
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
        # Shielded: if one caller is cancelled, the others must still get the value.
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
        # Encode and decode the value, so that the loader returns the same types as L1 and L2.
        payload = msgspec.msgpack.encode(await self._function(*bound.args, **bound.kwargs))
        value = self._decode(payload)
        if reading is not None:
            system.l1.put(key, Entry(value, time.monotonic() + self._ttl, tags), ticket)
            with contextlib.suppress(*UNREACHABLE):  # the value is valid, it is only not stored in L2
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
