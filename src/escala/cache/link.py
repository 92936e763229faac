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
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from typing import Any, Protocol

import msgspec

from escala.background import BackgroundLoop
from escala.cache.connect import Connector
from escala.cache.wire import FAILURES, SECONDS, Wire

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
        self._tried = asyncio.Event()
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
            await self._connect_and_listen()
        except FAILURES as error:
            self._failure = str(error) or type(error).__name__
        finally:
            self._tried.set()
            self._lose()
        if time.monotonic() - began > _STABLE:
            self._retry = _RETRY_EVERY
        else:
            self._retry = min(self._retry * 1.5, _RETRY_MOST)
        return self._retry

    def _lose(self) -> None:
        if self.wire is not None and self._failure:
            log.warning(
                "Valkey is unavailable (%s); values are loaded without it, and kept for a second", self._failure
            )
        self.wire = None
        self._listener.link_down()
        self._wake(list(self._watched))

    async def _connect_and_listen(self) -> None:
        async with asyncio.timeout(SECONDS) as opening, self._connections() as (wire, pushes):
            await pushes.connect()
            await wire.open()
            await self._read_clock(wire)
            await pushes.send_command("CLIENT", "ID", check_health=False)
            identity = await pushes.read_response()
            await wire.call("CLIENT", "TRACKING", "ON", "REDIRECT", identity, "BCAST", "PREFIX", self._prefix + b"e:")
            began = time.monotonic()
            await pushes.send_command("SUBSCRIBE", _PUSHES, self.channel, check_health=False)
            while (await pushes.read_response(disable_decoding=True))[::2] != [b"subscribe", 2]:
                pass  # changes that are told already; there is nothing yet that they could concern
            opening.reschedule(None)
            self._up(wire, began)
            await _until_one_fails(self._listen(pushes), self._beat(wire, pushes), self._follow_clock(wire))

    def _up(self, wire: Wire, since: float) -> None:
        self.wire = wire
        self._pinged.clear()
        self._listener.link_up()
        self._listener.trusted(since + LEASE)
        self._tried.set()
        if self._failure:
            log.warning("Valkey is available again")
            self._failure = ""

    @contextlib.asynccontextmanager
    async def _connections(self) -> AsyncIterator[tuple[Wire, Any]]:
        make = await self._connector.locate()
        wire, pushes = Wire(make()), make()
        try:
            yield wire, pushes
        finally:
            await wire.close()
            await pushes.disconnect(nowait=True)

    async def _listen(self, pushes: Any) -> None:
        while True:
            kind, *parts = await pushes.read_response(disable_decoding=True)
            if kind == b"pong":
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

    async def _beat(self, wire: Wire, pushes: Any) -> None:
        """Ping, and raise when one of the connections has not answered for too long."""
        while True:
            await asyncio.sleep(PING_EVERY)
            if wire.lost is not None:
                raise wire.lost
            if wire.is_late() or (self._pinged and time.monotonic() - self._pinged[0] > SILENCE):
                raise TimeoutError(f"no answer for {SILENCE:g} s")
            self._pinged.append(time.monotonic())
            await pushes.send_command("PING", check_health=False)

    async def _follow_clock(self, wire: Wire) -> None:
        while True:
            await asyncio.sleep(PING_EVERY)
            await self._read_clock(wire)

    async def _read_clock(self, wire: Wire) -> None:
        sent = time.monotonic()
        seconds, microseconds = await wire.call("TIME")
        self._clock = int(seconds) + int(microseconds) / 1e6 - sent

    def _wake(self, names: Iterable[str]) -> None:
        for name in names:
            for event in self._watched.get(name, ()):
                event.set()

    def _name(self, key: bytes) -> str:
        return key[len(self._prefix) :].decode(errors="surrogateescape")


def message(*, released: Iterable[str] = (), invalidated: Iterable[str] = ()) -> bytes:
    return _encoder.encode(Message(list(released), list(invalidated)))


async def _until_one_fails(*works: Coroutine[Any, Any, None]) -> None:
    """Run endless works side by side. The first that fails ends the others, and its exception is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
