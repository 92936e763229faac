"""The link to Valkey: a connection for commands, and one on which Valkey says what has changed.

Valkey tracks every entry of the project's caches (CLIENT TRACKING in its broadcasting mode), so whatever changes or
deletes one is told to every process, also a ``DEL`` that somebody types. See
https://valkey.io/topics/client-side-caching/. Invalidations are published on a channel of their own.

The link is up while both connections answer. While it is down nothing is asked of Valkey: it is the circuit breaker of
L2, and its attempts to connect are the probes.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Protocol

import msgspec
from valkey.exceptions import ConnectionError as ValkeyConnectionError

from escala.background import BackgroundLoop
from escala.cache.valkey.connect import Connector
from escala.cache.valkey.wire import FAILURES, SECONDS, Feed, Wire

PING_EVERY = 0.25
"""Seconds between two pings of each connection."""
SILENCE = 0.8
"""Seconds without an answer to a ping after which the link counts as lost."""
LEASE = 1.0
"""Seconds for which an answer to a ping lets L1 be used, counted from the ping."""
_RETRY_EVERY = 0.2
_RETRY_MOST = 2.0
_STABLE = 10.0
"""Seconds after which a link that is lost is tried again at once."""

_PUSHES = b"__redis__:invalidate"


class Message(msgspec.Struct, array_like=True):
    """What is published: entries whose load has ended without a value, or what was invalidated."""

    released: list[str]
    invalidated: list[str]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)

log = logging.getLogger("escala.cache")


class Listener(Protocol):
    """What is told of changes. Names are those of entries and tags, without the project's prefix."""

    def link_up(self) -> None: ...
    def link_down(self) -> None: ...
    def trusted(self, until: float) -> None: ...
    def changed(self, names: Iterable[str]) -> None: ...
    def all_changed(self) -> None: ...


class Link:
    def __init__(self, connector: Connector, prefix: str, listener: Listener) -> None:
        self._connector = connector
        self._prefix = prefix.encode()
        self._listener = listener
        self._loop = BackgroundLoop("cache link", self._follow)
        self._tried, self._is_up = asyncio.Event(), asyncio.Event()
        self._watched: dict[str, set[asyncio.Event]] = {}
        self._retry = _RETRY_EVERY
        self._failure = ""
        self._pinged: deque[float] = deque()
        self._clock = 0.0
        self.channel = self._prefix + b"bus"
        self.wire: Wire | None = None
        """The connection for commands; None while the link is down."""

    async def start(self) -> None:
        """Connect in the background. Return when the first attempt has succeeded or failed."""
        self._loop.start()
        await self._tried.wait()

    async def stop(self) -> None:
        await self._loop.stop()

    async def wait_up(self, seconds: float) -> None:
        """Wait until the link is up, at most `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_up.wait()

    def server_time(self) -> float:
        """Return the time in seconds since the epoch by Valkey's clock."""
        return time.monotonic() + self._clock

    @contextlib.contextmanager
    def watching(self, name: str) -> Iterator[asyncio.Event]:
        """Give an event that is set when the entry `name` changes, when its load ends, or when the link is lost."""
        event = asyncio.Event()
        self._watched.setdefault(name, set()).add(event)
        try:
            yield event
        finally:
            events = self._watched[name]
            events.discard(event)
            if not events:
                del self._watched[name]

    async def _follow(self) -> float:
        began = time.monotonic()
        try:
            await self._connect_and_beat()
        except FAILURES as error:
            self._failure = str(error) or type(error).__name__
        finally:
            self._tried.set()
            self._down()
        if time.monotonic() - began > _STABLE:
            self._retry = _RETRY_EVERY
        else:
            self._retry = min(self._retry * 1.5, _RETRY_MOST)
        return self._retry

    async def _connect_and_beat(self) -> None:
        """Connect, and ping until a connection is lost. Raises one of FAILURES."""
        make = await self._connector.locate()
        lost, subscribed = asyncio.Event(), asyncio.Event()
        wire = Wire(make(), lost.set)
        feed = Feed(make(), lost.set, partial(self._hear, subscribed))
        try:
            async with asyncio.timeout(SECONDS):
                await feed.open()
                await wire.open()
                await wire.load_scripts()
                self._pinged.clear()
                await self._ask_clock(wire)
                identity = await feed.ask("CLIENT", "ID")
                await wire.call(
                    "CLIENT", "TRACKING", "ON", "REDIRECT", identity, "BCAST", "PREFIX", self._prefix + b"e:"
                )
                began = time.monotonic()
                feed.send(("SUBSCRIBE", _PUSHES, self.channel))
                await subscribed.wait()
            self._up(wire, began)
            while True:
                self._check(wire, feed)
                self._ping(wire, feed)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PING_EVERY):
                        await lost.wait()
        finally:
            wire.close()
            feed.close()

    def _up(self, wire: Wire, since: float) -> None:
        self.wire = wire
        self._is_up.set()
        self._listener.link_up()
        self._listener.trusted(since + LEASE)
        self._tried.set()
        if self._failure:
            log.warning("Valkey is available again")
            self._failure = ""

    def _down(self) -> None:
        if self.wire is not None and self._failure:
            log.warning(
                "Valkey is unavailable (%s); values are loaded without it, and kept for a second", self._failure
            )
        self.wire = None
        self._is_up.clear()
        self._listener.link_down()
        self._wake(list(self._watched))

    def _check(self, wire: Wire, feed: Feed) -> None:
        """Raise if one of the connections is lost, or has not answered for too long."""
        for socket in (wire, feed):
            if socket.lost is not None:
                raise ValkeyConnectionError(str(socket.lost) or type(socket.lost).__name__)
        if wire.is_late() or (self._pinged and time.monotonic() - self._pinged[0] > SILENCE):
            raise TimeoutError(f"no answer for {SILENCE:g} s")

    def _ping(self, wire: Wire, feed: Feed) -> None:
        self._pinged.append(time.monotonic())
        feed.send(("PING",))
        self._ask_clock(wire)

    def _ask_clock(self, wire: Wire) -> "asyncio.Future[list[Any]]":
        answer = wire.calls(("TIME",))
        answer.add_done_callback(partial(self._set_clock, time.monotonic()))
        return answer

    def _set_clock(self, asked: float, answer: "asyncio.Future[list[Any]]") -> None:
        if not answer.cancelled() and not answer.exception():
            ((seconds, microseconds),) = answer.result()
            self._clock = int(seconds) + int(microseconds) / 1e6 - asked

    def _hear(self, subscribed: asyncio.Event, message: list[Any]) -> None:
        kind, *parts = message
        if kind == b"subscribe":
            if parts[1] == 2:
                subscribed.set()
        elif kind == b"pong":
            if self._pinged:
                self._listener.trusted(self._pinged.popleft() + LEASE)
        elif parts[0] == self.channel:
            self._told(parts[1])
        elif parts[1] is None:  # FLUSHALL or FLUSHDB
            self._listener.all_changed()
            self._wake(list(self._watched))
        else:
            names = [self._name(key) for key in parts[1]]
            self._listener.changed(names)
            self._wake(names)

    def _told(self, data: bytes) -> None:
        try:
            message = _decoder.decode(data)
        except msgspec.MsgspecError:  # not sent by this version: any entry may be affected
            log.warning("received an unreadable message about the cache; L1 was emptied")
            self._listener.all_changed()
        else:
            self._listener.changed(message.invalidated)
            self._wake(message.released + message.invalidated)

    def _wake(self, names: Iterable[str]) -> None:
        for name in names:
            for event in self._watched.get(name, ()):
                event.set()

    def _name(self, key: bytes) -> str:
        return key[len(self._prefix) :].decode(errors="replace")  # a name of ours is valid UTF-8


def message(*, released: Iterable[str] = (), invalidated: Iterable[str] = ()) -> bytes:
    return _encoder.encode(Message(list(released), list(invalidated)))
