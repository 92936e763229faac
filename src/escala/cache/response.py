"""`Cache.response`: whole HTTP answers, kept in the same levels as values.

What is an ETag, and when 304 is the answer: RFC 9110, 13 and 15.4.5. Age: RFC 9111, 5.1. Cache-Status: RFC 9211.
"""

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from escala.cache.codec import Codec
from escala.cache.keys import digest, seed
from escala.cache.loads import Lookup, NotKept
from escala.cache.policy import Policy
from escala.cache.request import Request, address
from escala.cache.system import slot
from escala.environment import Environment
from escala.values.template import Template

_MOST_BYTES = 1024**2
"""Longer bodies are passed on, and not kept."""
_CREDENTIALS = ("authorization", "cookie")
_KEPT_STATUSES = frozenset({200, 203, 204, 301, 308, 404, 410})
_NOT_KEPT = re.compile(r"\b(no-store|no-cache|private|(s-)?max-?age=0)\b")
"""What in an answer's Cache-Control forbids to keep it."""
_CONDITIONS = frozenset({b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since", b"if-range"})
_UNCHANGED = frozenset({b"cache-control", b"content-location", b"date", b"etag", b"expires", b"vary", b"age"})
"""The headers that a 304 has, too."""

log = logging.getLogger("escala.cache")
_running: set["asyncio.Task[None]"] = set()
"""Apps that are still busy after their answer, as with a background task."""


class Answer(msgspec.Struct, array_like=True):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    made_at: float
    """Seconds since the epoch, for Age."""


class PassedOn(NotKept):
    """The answer is not to be kept, and goes to the client as it comes."""

    remembered = 10.0

    def __init__(self, recording: "_Recording | None") -> None:
        super().__init__()
        self.recording = recording

    def __copy__(self) -> "PassedOn":
        return PassedOn(None)


class ResponseCache:
    """ASGI middleware that keeps the answers to GET requests. See `Cache.response`."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        cache: str,
        name: str,
        policy: Policy,
        paths: Sequence[str],
        tags: Sequence[str],
        vary: Sequence[str],
        shared: bool,
        status: bool,
    ) -> None:
        self.app = app
        self._cache = cache
        self._policy = replace(policy, soft_timeout=0.0)  # by then, an answer may have begun to be passed on
        self._paths = [re.compile(".*".join(map(re.escape, path.split("*")))) for path in paths]
        self._templates = [Template(tag) for tag in tags]
        self._vary = sorted({header.lower() for header in vary})
        self._shared = shared
        self._status = status
        self._codec = Codec(Answer)
        self._seed = seed(f"{Environment.read().service} {name}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or not self._concerns(scope):
            await self.app(scope, receive, send)
            return
        recording = _Recording(self.app, self._vary, receive, send)
        request, found = self._request(scope, recording), None
        try:
            if scope["method"] == "HEAD":
                found = await slot.get().peek(request)
            else:
                found, _ = await slot.get().lookup(request)
        except PassedOn as passed:
            if passed.recording is recording:
                await recording.finish()
                return
        except BaseException:
            recording.leave()
            raise
        recording.leave()
        if found is None:  # nothing is kept, or the answer to another client is not one for this client
            await self.app(scope, receive, send)
        else:
            await self._send(found, scope, send)

    def _concerns(self, scope: Scope) -> bool:
        """Whether the answer to a request may come from here."""
        if self._paths and not any(path.fullmatch(scope["path"]) for path in self._paths):
            return False
        headers = Headers(scope=scope)
        if "range" in headers or "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
            return False
        if "no-store" in _joined(headers, "cache-control"):
            return False
        return self._shared or all(name not in headers or name in self._vary for name in _CREDENTIALS)

    def _request(self, scope: Scope, recording: "_Recording") -> Request:
        headers = Headers(scope=scope)
        where = [scope.get("scheme", ""), headers.getlist("host"), scope.get("root_path", ""), scope["path"]]
        key = digest(self._seed, [*where, scope["query_string"], *(headers.getlist(name) for name in self._vary)])
        tags = [each.fill({"path": scope["path"]}) for each in self._templates]
        place = address(self._cache, f"{self._cache}:{quote(scope['path'], errors='replace')}:{key}", tags, self._codec)

        async def loader() -> Answer:
            return await recording.run(scope)

        return Request(self._cache, place, self._codec, self._policy, loader, f"GET {scope['path']}")

    async def _send(self, found: Lookup[Answer], scope: Scope, send: Send) -> None:
        answer = found.value
        headers = [*answer.headers, (b"age", b"%d" % max(0, time.time() - answer.made_at))]
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


class _Recording:
    """Runs the app, and keeps its answer. If it is not one to keep, it goes to the client as it comes.

    The app runs in a task of its own, which outlives the load: a stream that is passed on has no time limit, and a
    background task does not delay the answer.
    """

    def __init__(self, app: ASGIApp, vary: Sequence[str], receive: Receive, send: Send) -> None:
        self._app = app
        self._vary = vary
        self._client_receive = receive
        self._client: Send | None = send
        self._start: Message | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._decided = asyncio.Event()
        """Set when the answer is complete, or begins to be passed on."""
        self._passing = self._complete = self._asked = False
        self._task: asyncio.Task[None] | None = None

    async def run(self, scope: Scope) -> Answer:
        """Return the answer. Raises PassedOn if it is not to be kept, and the exception of the app."""
        headers = [(name, value) for name, value in scope["headers"] if name.lower() not in _CONDITIONS]
        unconditional = {**scope, "headers": headers}  # 304 is answered from here
        self._task = asyncio.create_task(self._app(unconditional, self._receive, self._send))  # type: ignore[arg-type]
        _running.add(self._task)
        self._task.add_done_callback(self._end)
        try:
            await self._decided.wait()
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if self._complete:
            return self._answer()
        if self._passing:
            raise PassedOn(self)
        await self._task  # the app has failed before it began to answer
        raise RuntimeError("the app did not answer")

    async def _receive(self) -> Message:
        """Return the empty body of a GET request. Nobody disconnects then while others may wait for the answer."""
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._decided.wait()
        if self._passing:
            return await self._client_receive()
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    def leave(self) -> None:
        """Say that the client needs nothing more. An answer that is passed on has nobody to go to then."""
        self._client = None
        if self._passing and self._task is not None:
            self._task.cancel()

    async def finish(self) -> None:
        """Wait until an answer that is passed on has ended. Raises the exception of the app."""
        assert self._task is not None
        try:
            await asyncio.shield(self._task)
        except asyncio.CancelledError:
            self._task.cancel()
            raise

    def _end(self, task: "asyncio.Task[None]") -> None:
        _running.discard(task)
        if not task.cancelled() and task.exception() is not None and self._complete:
            log.error("an app failed after it had answered", exc_info=task.exception())
        self._decided.set()

    def _answer(self) -> Answer:
        assert self._start is not None
        body = b"".join(self._body)
        headers = [(name.lower(), value) for name, value in self._start["headers"]]
        names = {name for name, _ in headers}
        if b"etag" not in names and self._start["status"] == 200:
            headers.append((b"etag", b'"%b"' % hashlib.blake2b(body, digest_size=12).hexdigest().encode()))
        if b"cache-control" not in names:  # clients ask again each time, as an invalidation does not reach them
            headers.append((b"cache-control", b"no-cache"))
        if self._vary:
            headers = [(name, value) for name, value in headers if name != b"vary"]
            headers.append((b"vary", ", ".join(self._vary).encode()))
        return Answer(self._start["status"], headers, body, time.time())

    async def _send(self, message: Message) -> None:
        if self._passing:
            await self._to_client(message)
        elif message["type"] == "http.response.start":
            self._start = {"headers": [], **message}
            if not self._may_be_kept():
                await self._pass_on()
        elif message["type"] == "http.response.body":
            self._body.append(message.get("body", b""))
            self._size += len(self._body[-1])
            more = message.get("more_body", False)
            if self._size > _MOST_BYTES or (not more and not self._has_its_length()):
                await self._pass_on(more=more)
            elif not more:
                self._complete = True
                self._decided.set()
        else:  # trailers, a push promise and the like
            await self._pass_on()
            await self._to_client(message)

    def _may_be_kept(self) -> bool:
        assert self._start is not None
        headers = self._headers()
        varies = {name.strip() for name in _joined(headers, "vary").split(",") if name.strip()}
        return (
            self._start["status"] in _KEPT_STATUSES
            and not self._start.get("trailers")
            and "set-cookie" not in headers
            and not _NOT_KEPT.search(_joined(headers, "cache-control"))
            and not headers.get("content-type", "").startswith("text/event-stream")
            and varies <= set(self._vary)
        )

    def _has_its_length(self) -> bool:
        return int(self._headers().get("content-length", self._size)) == self._size

    def _headers(self) -> Headers:
        assert self._start is not None
        return Headers(raw=[(name.lower(), value) for name, value in self._start["headers"]])

    async def _pass_on(self, *, more: bool = True) -> None:
        self._passing = True
        self._decided.set()
        if self._start is not None:
            await self._to_client(self._start)
        if self._body:
            body = b"".join(self._body)
            self._body.clear()
            await self._to_client({"type": "http.response.body", "body": body, "more_body": more})

    async def _to_client(self, message: Message) -> None:
        if self._client is not None:
            await self._client(message)
        elif self._task is not None:
            self._task.cancel()


def _joined(headers: Headers, name: str) -> str:
    """Return all lines of a header as one list, in lower case."""
    return ", ".join(headers.getlist(name)).lower()


def _words_of(found: Lookup[Any]) -> bytes:
    if found.source == "loader":
        return b"fwd=miss; stored"
    return b"hit; detail=%b%b" % (found.source.encode(), b"; fwd=stale" if found.stale else b"")


def _matches(wanted: str, etag: str) -> bool:
    """Whether If-None-Match names an ETag (RFC 9110, 13.1.2: the weak comparison)."""
    tags = {tag.strip().removeprefix("W/") for tag in wanted.split(",")}
    return "*" in tags or etag.removeprefix("W/") in tags
