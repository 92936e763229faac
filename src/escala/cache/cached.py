"""`Cached`: a function whose results are cached, and the shortest way to a value in L1."""

import asyncio
import contextlib
import contextvars
import copy
import inspect
import sys
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from datetime import date
from enum import Enum
from functools import partial, update_wrapper
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar, get_type_hints, overload
from uuid import UUID

from escala.cache.codec import Codec
from escala.cache.keys import KeyPart, digest, seed
from escala.cache.loads import Lookup
from escala.cache.policy import Policy
from escala.cache.request import Request, address
from escala.cache.shortcut import bind, has_shortcut, shape, with_shortcut
from escala.cache.system import slot, wait_in_thread
from escala.cache.valkey.l2 import MOST_TAGS
from escala.values.template import Template

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_Work: TypeAlias = Callable[[Mapping[str, Any]], Coroutine[Any, Any, R]]

_SIMPLE = frozenset({str, int, bool, bytes, date, UUID, type(None)})
"""Types whose equal values are the same value, so that an argument is a key as it is."""


class Cached(Protocol[P, R]):
    """An async function whose results are cached. Call it like the original one, or use one of its methods."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...

    async def lookup(self, *args: P.args, **kwargs: P.kwargs) -> Lookup[R]:
        """Return the value together with its source: "l1", "l2" or "loader".

        Raises NotConnected before the cache is connected, LoadTimedOut if the load takes too long, RecursiveLoad if it
        asks for its own result, TypeError if an argument cannot be part of a key or the result cannot be kept, and
        every exception of the function.
        """
        ...

    async def delete(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Delete the value for these arguments, in all replicas. Raises CacheUnavailable if Valkey is unavailable."""
        ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of the value for these arguments, as `escala cache get` takes it."""
        ...

    @overload
    def __get__(self, instance: None, owner: type) -> "Cached[P, R]": ...
    @overload
    def __get__(
        self: "Cached[Concatenate[Any, Q], R]", instance: object, owner: type | None = None
    ) -> "Cached[Q, R]": ...


class CachedPlain(Protocol[P, R_co]):
    """A plain function whose results are cached. Call it in a thread, as frameworks do with plain handlers.

    On the event loop it raises CalledOnLoop, unless the value is in L1.
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def lookup(self, *args: P.args, **kwargs: P.kwargs) -> Lookup[Any]:
        """As `Cached.lookup`. Raises CalledOnLoop on an event loop's thread."""
        ...

    def delete(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """As `Cached.delete`."""
        ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str: ...

    @overload
    def __get__(self, instance: None, owner: type) -> "CachedPlain[P, R_co]": ...
    @overload
    def __get__(
        self: "CachedPlain[Concatenate[Any, Q], R_co]", instance: object, owner: type | None = None
    ) -> "CachedPlain[Q, R_co]": ...


class Target:
    """A function to be cached, and how its calls become requests.

    Raises TypeError for a function whose results cannot be cached, ValueError for a wrong tag.
    """

    def __init__(
        self,
        cache: str,
        function: Callable[..., Any],
        name: str,
        policy: Policy,
        tags: Sequence[str],
        key: Sequence[str] | None,
    ) -> None:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{name} yields its values one by one; cache a function that returns a list")
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        self.name = name
        self.cache = cache
        self._prefix = f"{cache}:{name}:"
        self._seed = seed(name)
        self._policy = policy
        self.signature = inspect.signature(function)
        self._templates = [Template(tag) for tag in tags]
        self._key = None if key is None else [KeyPart(part) for part in key]
        self._codec: Codec | None = None
        self._has_shortcut = has_shortcut(self.signature)
        first = next(iter(self.signature.parameters), "")
        self.is_method = first == "self"
        self._check_names()
        if self.is_method and key is None:
            raise TypeError(
                f"{name} is a method: say which fields of self and which arguments its result depends on, such as "
                'key=["self.id", "month"]'
            )
        try:
            self.codec  # noqa: B018 - it is made here, so that a type that cannot be kept is refused at import
        except NameError as error:
            if not self.is_method:  # a method may name its own class, which does not exist yet
                raise TypeError(
                    f"the return annotation of {name} cannot be read when it is decorated: {error}; import that name "
                    "outside of TYPE_CHECKING, and define it above"
                ) from None

    def _check_names(self) -> None:
        in_tags = {name for template in self._templates for name in template.names}
        in_key = {part.root for part in self._key or ()}
        if unknown := sorted((in_tags | in_key) - set(self.signature.parameters)):
            raise TypeError(f"{self.name}: its tags or key refer to {', '.join(unknown)}, which is not a parameter")
        if self._key is not None and (apart := sorted(in_tags - in_key)):
            raise TypeError(
                f"{self.name}: its tags refer to {', '.join(apart)}, which is not in its key: two calls would share a "
                "value with the tags of one"
            )
        if len(self._templates) >= MOST_TAGS:
            raise ValueError(f"{self.name} has {len(self._templates)} tags; an entry has fewer than {MOST_TAGS}")

    def _make_codec(self) -> Codec:
        annotations = getattr(inspect.unwrap(self.function), "__annotations__", {})
        if "return" not in annotations:
            raise TypeError(f"{self.name} does not say what it returns; add an annotation, such as -> list[dict]")

        class Shim:
            __annotations__ = {"return": annotations["return"]}

        names = getattr(inspect.unwrap(self.function), "__globals__", {})
        annotation = get_type_hints(Shim, globalns=names, include_extras=True)["return"]
        try:
            return Codec(annotation)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None

    @property
    def codec(self) -> Codec:
        if self._codec is None:
            self._codec = self._make_codec()
        return self._codec

    def request(self, arguments: Mapping[str, Any]) -> Request:
        """Return what a call asks for. Raises TypeError if an argument cannot be part of a key or a tag."""
        tags = [template.fill(arguments) for template in self._templates]
        try:
            codec = self.codec
        except NameError as error:
            raise TypeError(f"the return annotation of {self.name} cannot be read: {error}") from None
        place = address(self.cache, self.key(arguments), tags, codec)
        loader = partial(self._run, self._own(arguments))
        return Request(self.cache, place, codec, self._policy, loader, self.name)

    def _own(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with copies of those in the key: a caller may change its own before they are used."""
        own = dict(arguments)
        for name in arguments if self._key is None else {part.root for part in self._key}:
            if name not in ("self", "cls") and type(own[name]) not in _SIMPLE:
                with contextlib.suppress(Exception):  # what cannot be copied is taken as it is
                    own[name] = copy.deepcopy(own[name])
        return own

    def key(self, arguments: Mapping[str, Any]) -> str:
        """Return the key of a call. Raises TypeError if an argument cannot be part of one."""
        values = list(arguments.values()) if self._key is None else [part.read(arguments) for part in self._key]
        if self.is_method:
            values.append(type(arguments["self"]))
        try:
            return self._prefix + digest(self._seed, values)
        except RecursionError:
            raise TypeError(f"{self.name}: an argument is nested too deeply to be part of a key") from None
        except TypeError as error:
            raise TypeError(
                f"{self.name}: {error}, so it cannot be part of a key; name the arguments that matter: key=[...]"
            ) from None

    def _run(self, arguments: Mapping[str, Any]) -> Awaitable[Any]:
        bound = inspect.BoundArguments(self.signature, OrderedDict(arguments))
        if self.is_async:
            return self.function(*bound.args, **bound.kwargs)  # type: ignore[no-any-return]
        return _in_thread(partial(self.function, *bound.args, **bound.kwargs))

    async def lookup(self, arguments: Mapping[str, Any]) -> Lookup[Any]:
        """Look a call up, on the cache's event loop."""
        found, entry = await slot.get().lookup(self.request(arguments))
        home = None if entry is None else entry.home
        if home is not None and self._has_shortcut and all(map(_is_simple, arguments.values())):
            assert entry is not None
            home.remember_call(shape(self, arguments), entry)
        return found

    async def delete(self, arguments: Mapping[str, Any]) -> None:
        request = self.request(arguments)
        await slot.get().invalidate(self.cache, (), [request.address.name], alone=not request.policy.uses_l2)


def _is_simple(value: object) -> bool:
    kind = type(value)
    return (kind in _SIMPLE and (kind not in (str, bytes, int) or sys.getsizeof(value) < 500)) or isinstance(
        value, Enum
    )


async def _in_thread(function: Callable[[], Any]) -> Any:
    """Run a plain loader in a thread of its own: a pool could be full of loads that wait for one another."""
    future: Future[Any] = Future()
    context = contextvars.copy_context()

    def work() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = context.run(function)
        except StopIteration as error:  # a future cannot hold it
            future.set_exception(RuntimeError("the function raised StopIteration").with_traceback(error.__traceback__))
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=work, name="cache load", daemon=True).start()
    return await asyncio.wrap_future(future)


def cached_async(target: Target) -> Any:
    """Return the async function that users call."""

    async def on_loop(work: _Work[R], arguments: Mapping[str, Any]) -> R:
        loop = slot.get().loop
        if loop is None or asyncio.get_running_loop() is loop:
            return await work(arguments)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(arguments), loop))

    async def lookup(arguments: Mapping[str, Any]) -> Lookup[Any]:
        return await on_loop(target.lookup, arguments)

    async def miss(arguments: Mapping[str, Any]) -> Any:
        return (await lookup(arguments)).value

    async def delete(*args: Any, **kwargs: Any) -> None:
        await on_loop(target.delete, bind(target.signature, args, kwargs))

    return _dressed(
        target,
        with_shortcut(target.signature, target, miss, is_async=True),
        with_shortcut(target.signature, target, lookup, is_async=True, lookup=True),
        delete,
    )


def cached_plain(target: Target) -> Any:
    """Return the plain function that users call. It waits in the caller's thread."""

    def lookup(arguments: Mapping[str, Any]) -> Lookup[Any]:
        return wait_in_thread(target.lookup(arguments), target.name)

    def miss(arguments: Mapping[str, Any]) -> Any:
        return lookup(arguments).value

    def delete(*args: Any, **kwargs: Any) -> None:
        wait_in_thread(target.delete(bind(target.signature, args, kwargs)), target.name)

    return _dressed(
        target,
        with_shortcut(target.signature, target, miss, is_async=False),
        with_shortcut(target.signature, target, lookup, is_async=False, lookup=True),
        delete,
    )


def _dressed(target: Target, call: Any, lookup: Any, delete: Any) -> Any:
    """Give a function the name and the documentation of the cached one, and what else it can do."""

    def key(*args: Any, **kwargs: Any) -> str:
        return target.key(bind(target.signature, args, kwargs))

    update_wrapper(call, target.function)
    call.lookup, call.delete, call.key = lookup, delete, key
    return _Method(call) if target.is_method else call


class _Method:
    """A cached method: the function in its class, and bound to an instance with all that belongs to it."""

    def __init__(self, call: Any) -> None:
        update_wrapper(self, call)
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        bound = partial(self._call, instance)
        for name in ("lookup", "delete", "key"):
            setattr(bound, name, partial(getattr(self._call, name), instance))
        return bound
