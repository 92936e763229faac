"""`Cache`: what service authors declare, and ask for values."""

import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from enum import Enum
from functools import partial
from typing import Any, Protocol, TypeVar, Unpack, overload

from starlette.types import ASGIApp

from escala.cache.cached import Cached, CachedPlain, P, R, Target, cached_async, cached_plain
from escala.cache.codec import Codec
from escala.cache.keys import is_interactive
from escala.cache.policy import Options, Policy
from escala.cache.request import Request, address
from escala.cache.response import ResponseCache
from escala.cache.system import slot
from escala.cache.valkey.l2 import MOST_TAGS, entry_name, tag_name
from escala.values.names import function_name
from escala.values.template import Template, tag_text

T = TypeVar("T")
D = TypeVar("D")

_PLACEHOLDER = re.compile(r"\{[A-Za-z_][\w.\[\]]*\}")

_functions: dict[tuple[str, str], Callable[..., Any]] = {}
"""The functions of this process that are cached, by cache and name."""


class Decorator(Protocol):
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Cached[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, R], /) -> CachedPlain[P, R]: ...


class Cache:
    """A named cache. Creating one does no I/O; `escala.lifespan` or `escala.running` connects it.

    ``flights = Cache("flights", ttl="60s")``, then ``@flights.cached(tags=["from:{origin}"])`` on a function.

    `name` separates this cache's keys and tags from those of other caches of the project. Services that use the same
    name share keys and tags, so each can invalidate the values of the others. `options` are those of `Options`; what is
    cached may have its own.

    Raises ValueError or TypeError for a name or an option that is not valid.
    """

    def __init__(self, name: str, **options: Unpack[Options]) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
            raise ValueError(f"a cache's name is 1 to 64 letters, digits, dots, dashes and underscores, not {name!r}")
        self.name = name
        self.policy = Policy().with_options(options)
        self._uses_l2 = self.policy.uses_l2
        self._codecs: dict[Any, Codec] = {}

    def cached(
        self,
        *,
        name: str | None = None,
        key: Sequence[str] | None = None,
        tags: Sequence[str] = (),
        **options: Unpack[Options],
    ) -> Decorator:
        """Return a decorator that caches the results of a function by its arguments.

        The function may be async or plain, or a method of either kind. A plain one is called in a thread, as frameworks
        do with plain handlers. It says what it returns by its annotation, and results are kept as that type.

        `tags` are names to invalidate by; ``{argument}`` in a tag is replaced by the argument's value. `key` names the
        arguments that the result depends on, or attributes of them (``self.id``); by default all. `name` is for a
        function that is made inside another one. `options` are those of `Options`, and override the cache's.

        Arguments are told apart by type and value: numbers, strings, dates, enums, dataclasses, pydantic models and
        containers of them. Concurrent calls with the same arguments share one load, in this process and in all others.

        Raises ValueError for an option or a tag that is not valid. The decorator raises TypeError for a function that
        has no name of its own, that does not say what it returns, or whose result cannot be kept.
        """
        policy = self.policy.with_options(options)
        tags, key = _listed("tags", tags), None if key is None else _listed("key", key)
        self._uses_l2 = self._uses_l2 or policy.uses_l2

        def decorate(function: Callable[..., Any]) -> Any:
            target = Target(self.name, function, self._claim(name, function), policy, tags, key)
            return cached_async(target) if target.is_async else cached_plain(target)

        return decorate

    def _claim(self, name: str | None, function: Callable[..., Any]) -> str:
        """Return the name under which a function's results are kept. No other function of this cache may have it."""
        if name is None:
            name = function_name(function, 'cached(name="...")')
        elif not name or re.search(r"[\x00-\x20\x7f]", name):
            raise ValueError(f"a function's name must not contain blanks or control characters: {name!r}")
        earlier = _functions.get((self.name, name))
        if earlier is not None and not _is_reloaded(earlier, function):
            raise TypeError(
                f'the cache {self.name} has a function {name} already; give each a name of its own: cached(name="...")'
            )
        _functions[self.name, name] = function
        return name

    def response(
        self,
        *,
        name: str = "response",
        paths: Sequence[str] = (),
        tags: Sequence[str] = (),
        vary: Sequence[str] = (),
        shared: bool = False,
        status: bool = False,
        **options: Unpack[Options],
    ) -> Callable[[ASGIApp], ResponseCache]:
        """Return ASGI middleware that keeps whole answers to GET requests.

        ``app.add_middleware(flights.response(ttl="60s", paths=["/catalog/*"], tags=["catalog"]))``, or around any ASGI
        app: ``flights.response(ttl="60s")(app)``.

        Answers are kept by service, host, path, query and `name`, which tells several such middlewares of a service
        apart. `paths` says which requests it concerns, by default all; ``*`` stands for anything. ``{path}`` in `tags`
        is the path. `vary` names the request headers that the answer depends on. Requests with ``Authorization`` or
        ``Cookie`` are passed on, unless `vary` has that header, or `shared` says that the answer is the same for
        everybody who may ask. `status` adds the header Cache-Status (RFC 9211). `options` are those of `Options`.

        Not kept are answers with ``Set-Cookie``, with ``Cache-Control: no-store``, ``no-cache``, ``private`` or
        ``max-age=0``, with a ``Vary`` that names more than `vary`, event streams, and longer answers than 1 MiB. An
        answer without ETag gets one, and a request that has it already gets 304. An answer without Cache-Control gets
        ``no-cache``: clients ask again each time, because an invalidation does not reach them.

        Raises ValueError or TypeError for an option or a tag that is not valid.
        """
        if "soft_timeout" in options:
            raise ValueError("soft_timeout is not an option of answers: an answer may have begun by then")
        tags, vary, paths = _listed("tags", tags), _listed("vary", vary), _listed("paths", paths)
        if odd := next((path for path in paths if not path.startswith(("/", "*"))), None):
            raise ValueError(f"the path {odd!r} begins with neither / nor *, so no request has it")
        for tag in tags:
            if Template(tag).names - {"path"}:
                raise ValueError(f"the tag {tag!r} may only refer to {{path}}")
        policy = self.policy.with_options(options)
        self._uses_l2 = self._uses_l2 or policy.uses_l2
        return partial(
            ResponseCache,
            cache=self.name,
            name=name,
            policy=policy,
            paths=paths,
            tags=tags,
            vary=vary,
            shared=shared,
            status=status,
        )

    @overload
    async def get(self, key: str, *, type: type[T], default: None = None) -> T | None: ...
    @overload
    async def get(self, key: str, *, type: type[T], default: D) -> T | D: ...
    @overload
    async def get(self, key: str, *, default: Any = None) -> Any: ...
    async def get(self, key: str, *, type: Any = Any, default: Any = None) -> Any:
        """Return the value that was set for `key`, or `default`.

        A value that was set with another `type` is not found. Raises NotConnected before the cache is connected.
        """
        found = await slot.get().peek(self._request(key, type, self.policy))
        return default if found is None else found.value

    async def get_many(self, keys: Iterable[str], *, type: Any = Any) -> dict[str, Any]:
        """Return the values of those `keys` that have one. See `get`."""
        wanted = {key: self._request(key, type, self.policy) for key in _listed("keys", keys)}
        found = await slot.get().peek_many(list(wanted.values()))
        return {key: lookup.value for key, lookup in zip(wanted, found, strict=True) if lookup is not None}

    async def set(
        self, key: str, value: Any, *, type: Any = Any, tags: Sequence[str] = (), **options: Unpack[Options]
    ) -> None:
        """Keep `value` for `key`, in all replicas. After this returns, no process returns an older one for long.

        `type` is the value's declared type; by default it is what JSON can say, and dates, decimals, UUIDs, tuples and
        sets. `tags` are complete names. Raises TypeError if the value is not of that type, ValueTooLarge,
        CacheUnavailable if Valkey is unavailable, and NotConnected before the cache is connected.
        """
        request = self._request(key, type, self._policy(options), tags)
        await slot.get().store(request, value)

    async def get_or_load(
        self,
        key: str,
        loader: Callable[[], Awaitable[T]],
        *,
        type: Any = Any,
        tags: Sequence[str] = (),
        **options: Unpack[Options],
    ) -> T:
        """Return the value for `key`; load it with ``await loader()`` if there is none.

        Concurrent callers share one load, in this process and in all others. Errors are those of `Cached.lookup`.
        """
        found, _ = await slot.get().lookup(self._request(key, type, self._policy(options), tags, loader))
        return found.value  # type: ignore[no-any-return]

    async def delete(self, *keys: str) -> None:
        """Delete the values of `keys`, in all replicas. Raises the same errors as `invalidate`."""
        if not keys:
            raise TypeError("name at least one key; `clear` invalidates all values")
        await self._invalidate((), [entry_name(self._key(key)) for key in keys])

    async def invalidate(self, /, *tags: str, **arguments: Any) -> None:
        """Invalidate every value of this cache that has any of `tags`, in all replicas.

        `tags` are complete names; with `arguments` they are templates as in `cached`:
        ``invalidate("from:{origin}", origin=origin)``. After this returns, no lookup that starts in this process or
        that reaches Valkey returns such a value. Other processes drop it as soon as one message arrives, and within a
        second if none does (see docs/cache.md).

        Inside a transaction on `database.connection`, or in `database.transaction`, it takes place after that, at the
        end of the block.

        Raises CacheUnavailable if Valkey is unavailable, and NotConnected before the cache is connected.
        """
        if not tags:
            raise TypeError("name at least one tag; `clear` invalidates all values")
        if arguments:
            tags = self._filled(tags, arguments)
        await self._invalidate([tag_name(self.name, text) for text in self._texts(tags)])

    async def clear(self) -> None:
        """Invalidate every value of this cache, in all replicas. Raises the same errors as `invalidate`."""
        await self._invalidate([tag_name(self.name)])

    async def _invalidate(self, tags: Sequence[str], names: Sequence[str] = ()) -> None:
        await slot.get().invalidate(self.name, tags, names, alone=not self._uses_l2)

    def _policy(self, options: Options) -> Policy:
        if "levels" in options:
            raise ValueError(
                "levels is an option of the whole cache, and of functions: every `get` has to agree with it"
            )
        return self.policy.with_options(options)

    def _request(
        self,
        key: str,
        annotation: Any,
        policy: Policy,
        tags: Sequence[str] = (),
        loader: Callable[[], Awaitable[Any]] | None = None,
    ) -> Request:
        codec = self._codec(annotation)
        texts = self._texts(_listed("tags", tags))
        if len(texts) >= MOST_TAGS:
            raise ValueError(f"{len(texts)} tags; an entry has fewer than {MOST_TAGS}")
        place = address(self.name, self._key(key), texts, codec, listed=True)
        return Request(self.name, place, codec, policy, loader or _no_loader, f"{self.name} {key!r}")

    def _key(self, key: str) -> str:
        """Return a key as it is among those of all caches and functions."""
        if not isinstance(key, str):
            raise TypeError(f"a key must be a str, not {key!r}")
        try:
            key.encode()
        except UnicodeEncodeError:
            raise ValueError(f"the key {key!r} is not valid Unicode") from None
        return f"{self.name}:={key}"

    def _texts(self, tags: Sequence[object]) -> list[str]:
        """Return the texts of tags, as placeholders have them: an Enum stands for its value."""
        if odd := next((tag for tag in tags if not isinstance(tag, str | Enum)), None):
            raise TypeError(f"a tag must be a str, not {odd!r}")
        texts = [tag_text(tag) for tag in tags]
        if open_ := next((text for text in texts if _PLACEHOLDER.search(text)), None):
            raise ValueError(f"the tag {open_!r} has a placeholder; say its value: invalidate({open_!r}, name=value)")
        return texts

    def _filled(self, tags: Sequence[str], arguments: dict[str, Any]) -> tuple[str, ...]:
        templates = [Template(tag) for tag in tags]
        named = {name for template in templates for name in template.names}
        if missing := sorted(named - arguments.keys()):
            raise TypeError(f"the tags name {', '.join(missing)}, which is not among the arguments")
        if unused := sorted(arguments.keys() - named):
            raise TypeError(f"no tag names the argument {', '.join(unused)}")
        return tuple(template.fill(arguments) for template in templates)

    def _codec(self, annotation: Any) -> Codec:
        codec = self._codecs.get(annotation)
        if codec is None:
            codec = self._codecs[annotation] = Codec(annotation)
        return codec


def _listed(what: str, names: Iterable[str]) -> Sequence[str]:
    if isinstance(names, str):
        raise TypeError(f"{what} must be a list of names, such as [{names!r}]")
    return tuple(names)


async def _no_loader() -> Any:
    raise AssertionError("this request loads nothing")


def _is_reloaded(earlier: Callable[..., Any], function: Callable[..., Any]) -> bool:
    """Whether a function is the earlier one again, because its module was loaded again.

    Functions of a loop or a factory share their code object; loading a module again makes new ones.
    """
    if is_interactive(function):
        return True
    old, new = getattr(earlier, "__code__", None), getattr(function, "__code__", None)
    if old is None or new is None or old is new:
        return False
    return bool((old.co_filename, old.co_firstlineno) == (new.co_filename, new.co_firstlineno))
