"""`Cache.response`: whole HTTP answers, kept in the same levels as values.

It follows RFC 9111 as a cache of the origin server may: what it stores, when it answers by itself, ETag and 304 (RFC
9110, 13), Age, and on request Cache-Status (RFC 9211).
"""

import hashlib
import re
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from escala.cache.codec import FORMAT, Codec
from escala.cache.keys import Template, digest, seed
from escala.cache.loads import Lookup
from escala.cache.policy import Policy
from escala.cache.system import Request, slot
from escala.cache.valkey.l2 import Address

_MOST_BYTES = 1024**2
"""Longer bodies are passed on, and not kept."""
_CREDENTIALS = ("authorization", "cookie")
_KEPT_STATUSES = frozenset({200, 203, 204, 301, 308, 404, 410})
_UNCHANGED = frozenset({b"cache-control", b"content-location", b"date", b"etag", b"expires", b"vary", b"age"})
"""The headers that a 304 has, too (RFC 9110, 15.4.5)."""


class Answer(msgspec.Struct, array_like=True):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    stored_at: float
    """Seconds since the epoch, for Age."""


class PassedOn(Exception):
    """The answer is not to be kept, and has been sent to the client already."""


class ResponseCache:
    """ASGI middleware that keeps the answers to GET requests. See `Cache.response`."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        cache: str,
        policy: Policy,
        paths: Sequence[str],
        tags: Sequence[str],
        vary: Sequence[str],
        shared: bool,
        status: bool,
    ) -> None:
        self.app = app
        self._cache = cache
        self._policy = policy
        self._paths = [re.compile(".*".join(map(re.escape, path.split("*")))) for path in paths]
        self._templates = [Template(tag) for tag in tags]
        self._vary = sorted({name.lower() for name in vary})
        self._shared = shared
        self._status = status
        self._codec = Codec(Answer)
        self._seed = seed("response")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or not self._concerns(scope):
            await self.app(scope, receive, send)
            return
        client = _Client(send)
        system, request = slot.get(), self._request(scope, receive, client)
        try:
            if scope["method"] == "HEAD":
                found = await system.peek(request)
            else:
                found, _ = await system.lookup(request)
        except PassedOn as passed:
            if passed.args[0] is not client:  # it went to another one
                await self.app(scope, receive, send)
            return
        finally:
            client.waits = False
        if found is None:
            await self.app(scope, receive, send)
        else:
            await self._send(found, scope, send)

    def _concerns(self, scope: Scope) -> bool:
        """Whether the answer to a request may come from here."""
        if self._paths and not any(path.fullmatch(scope["path"]) for path in self._paths):
            return False
        headers = Headers(scope=scope)
        if "range" in headers or "no-store" in headers.get("cache-control", ""):
            return False
        return self._shared or all(name not in headers or name in self._vary for name in _CREDENTIALS)

    def _request(self, scope: Scope, receive: Receive, send: Send) -> Request:
        headers = Headers(scope=scope)
        varying = [headers.getlist(name) for name in self._vary]
        key = digest(self._seed, [scope["path"], scope["query_string"], *varying])
        arguments = {"path": scope["path"], **scope.get("path_params", {})}
        tags = (f"t:{self._cache}", *(f"t:{self._cache}:{template.fill(arguments)}" for template in self._templates))
        address = Address(
            f"e:{self._cache}:{scope['path']}:{key}", tags, f"{FORMAT}{self._codec.fingerprint}{len(tags)}"
        )

        async def loader() -> Answer:
            return await _Recording(self.app, self._vary, send).run(scope, receive)

        return Request(self._cache, address, self._codec, self._policy, loader, f"GET {scope['path']}")

    async def _send(self, found: Lookup[Answer], scope: Scope, send: Send) -> None:
        answer = found.value
        headers = [*answer.headers, (b"age", b"%d" % max(0, time.time() - answer.stored_at))]
        if self._status:
            headers.append((b"cache-status", b"escala; " + _words_of(found)))
        wanted = Headers(scope=scope).get("if-none-match")
        etag = dict(answer.headers).get(b"etag", b"").decode("latin-1")
        if answer.status == 200 and wanted is not None and _matches(wanted, etag):
            headers = [(name, value) for name, value in headers if name in _UNCHANGED or name == b"cache-status"]
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})


class _Client:
    """Whom a load that is not to be kept sends its answer: nobody, if the client has one or is gone."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.waits = True

    async def __call__(self, message: Message) -> None:
        if self.waits:
            await self._send(message)


class _Recording:
    """Runs the app, and keeps its answer. If it is not one to keep, it goes to the client as it comes."""

    def __init__(self, app: ASGIApp, vary: Sequence[str], send: Send) -> None:
        self._app = app
        self._vary = vary
        self._client = send
        self._start: Message | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._passing = False

    async def run(self, scope: Scope, receive: Receive) -> Answer:
        """Return the answer. Raises PassedOn if it was not to be kept."""
        await self._app(scope, receive, self._send)
        if self._passing or self._start is None:
            raise PassedOn(self._client)
        body = b"".join(self._body)
        headers = [(name.lower(), value) for name, value in self._start["headers"]]
        names = {name for name, _ in headers}
        if b"etag" not in names and self._start["status"] == 200:
            headers.append((b"etag", b'"%b"' % hashlib.blake2b(body, digest_size=12).hexdigest().encode()))
        if b"cache-control" not in names:  # clients ask again each time, as an invalidation does not reach them
            headers.append((b"cache-control", b"no-cache"))
        if b"vary" not in names and self._vary:
            headers.append((b"vary", ", ".join(self._vary).encode()))
        return Answer(self._start["status"], headers, body, time.time())

    async def _send(self, message: Message) -> None:
        if self._passing:
            await self._client(message)
        elif message["type"] == "http.response.start":
            self._start = {"headers": [], **message}
            if not self._may_be_kept():
                await self._pass_on()
        elif message["type"] == "http.response.body":
            self._body.append(message.get("body", b""))
            self._size += len(self._body[-1])
            if self._size > _MOST_BYTES:
                await self._pass_on(more=message.get("more_body", False))
        else:  # trailers, a push promise and the like
            await self._pass_on()
            await self._client(message)

    def _may_be_kept(self) -> bool:
        assert self._start is not None
        headers = Headers(raw=[(name.lower(), value) for name, value in self._start["headers"]])
        control = headers.get("cache-control", "").lower()
        varies = {name.strip().lower() for name in headers.get("vary", "").split(",") if name.strip()}
        return (
            self._start["status"] in _KEPT_STATUSES
            and not self._start.get("trailers")
            and "set-cookie" not in headers
            and not any(word in control for word in ("no-store", "private"))
            and varies <= set(self._vary)
        )

    async def _pass_on(self, *, more: bool = True) -> None:
        self._passing = True
        if self._start is not None:
            await self._client(self._start)
        if self._body:
            await self._client({"type": "http.response.body", "body": b"".join(self._body), "more_body": more})


def _words_of(found: Lookup[Any]) -> bytes:
    if found.source == "loader":
        return b"fwd=miss; stored"
    return b"hit; detail=%b%b" % (found.source.encode(), b"; fwd=stale" if found.stale else b"")


def _matches(wanted: str, etag: str) -> bool:
    """Whether If-None-Match names an ETag (RFC 9110, 13.1.2: the weak comparison)."""
    tags = {tag.strip().removeprefix("W/") for tag in wanted.split(",")}
    return "*" in tags or etag.removeprefix("W/") in tags
