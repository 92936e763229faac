"""The cache of one process: both levels, the link to Valkey, and the order in which they are asked."""

import asyncio
import contextlib
import logging
import math
import os
import socket
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from escala.background import BackgroundLoop
from escala.cache.codec import Codec
from escala.cache.counts import Counts
from escala.cache.l1 import L1, Entry
from escala.cache.loads import Load, Lookup, Source, limited
from escala.cache.policy import Policy
from escala.cache.valkey import report
from escala.cache.valkey.connect import Connector
from escala.cache.valkey.l2 import L2, LOCK_SECONDS, Address, Found, Right
from escala.cache.valkey.link import Link
from escala.cache.valkey.wire import FAILURES
from escala.database import after_commit
from escala.errors import CacheUnavailable, NoValkey, RecursiveLoad, ValueTooLarge
from escala.holder import ConnectionHolder

DEGRADED_SECONDS = 1.0
"""How long a value lives in L1 while Valkey is unavailable."""
_INVALIDATE_TRIES = 3
_REFRESH_AGAIN = 1.0
"""Seconds after which a refresh that failed is tried again."""
_DECODED = 4
"""How much larger than its MessagePack a decoded value is in memory, about (measured)."""

log = logging.getLogger("escala.cache")


@dataclass(frozen=True)
class Limits:
    entries: int = 10_000
    """The maximum number of entries in L1; 0 turns L1 off."""
    bytes: int = 64 * 1024**2
    """The maximum size of L1."""
    value: int = 4 * 1024**2
    """The maximum size of a value in Valkey, compressed."""
    compress: int = 4 * 1024
    """The size from which values in Valkey are compressed."""


class Ticket(NamedTuple):
    """The L1 that a value is meant for, and the number of its latest invalidation before the value was loaded."""

    l1: L1
    number: int


class Request(NamedTuple):
    """One lookup: where the entry is, how its value is encoded, what is wanted, and how the value is loaded."""

    cache: str
    address: Address
    codec: Codec
    policy: Policy
    loader: Callable[[], Awaitable[Any]]
    words: str
    """What is looked up, in words."""


class Stored(NamedTuple):
    """A value that a level has, fresh or not."""

    entry: Entry
    value: Any
    source: Source


class CacheSystem:
    """Both cache levels of one process, shared by all its `Cache` objects. It belongs to one event loop.

    Without a URL there is only L1, for caches that ask for no more.
    """

    def __init__(
        self,
        url: str,
        project: str,
        limits: Limits = Limits(),
        replica: str = "",
    ) -> None:
        self.calls: dict[Any, Entry] = {}
        """The entries of both L1, by the arguments of calls: see `L1.calls`."""
        self.shared = L1(limits.entries, limits.bytes, self.calls)
        """L1 of what is in Valkey too. It is on while the link is up."""
        self.alone = L1(limits.entries, limits.bytes, self.calls)
        """L1 of what is nowhere else: caches of the level "l1", and what was loaded while the link is down."""
        self.counts: defaultdict[str, Counts] = defaultdict(Counts)
        self.loads: dict[str, Load] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self._rights: dict[str, Right] = {}
        self._errors: dict[str, tuple[float, Exception]] = {}
        self._renewing = BackgroundLoop("renewal of cache locks", self._renew)
        self._reporting = BackgroundLoop("reports on the cache", self._report)
        self._replica = replica or f"{socket.gethostname()}:{os.getpid()}"
        self._process = f"{self._replica} {os.urandom(4).hex()}"
        self._prefix = report.prefix_of(project)
        self._link = Link(Connector(url, self._prefix), self._prefix, self) if url else None
        self._l2 = L2(self._link, self._prefix, limits.compress, limits.value) if self._link else None

    @property
    def connected(self) -> bool:
        """Whether Valkey answers. While it does not, lookups go to the loader, and its values live for a second."""
        return self.shared.on

    async def open(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.alone.switch_on()
        self.alone.trusted_until = math.inf
        if self._link is not None:
            await self._link.start()
            self._renewing.start()
            self._reporting.start()

    async def close(self) -> None:
        await self._renewing.stop()
        await self._reporting.stop()
        if self._link is not None:
            if self._link.wire is not None and self.counts:
                with contextlib.suppress(*FAILURES):
                    await report.remove(self._link.wire, self._prefix, self._process)
            await self._link.stop()
        self.shared.switch_off()
        self.alone.switch_off()

    # What the link says.

    def link_up(self) -> None:
        self.shared.switch_on()

    def link_down(self) -> None:
        self.shared.switch_off()

    def trusted(self, until: float) -> None:
        self.shared.trusted_until = until

    def changed(self, names: Iterable[str]) -> None:
        self.shared.invalidate(names)

    def all_changed(self) -> None:
        trusted = self.shared.trusted_until
        self.shared.switch_on()
        self.shared.trusted_until = trusted

    # What callers ask.

    async def lookup(self, request: Request) -> tuple[Lookup[Any], Entry | None]:
        """Return the value, from the first level that has it or from the loader, and its entry in L1, if it has one.

        Raises every exception of the loader, LoadTimedOut, LoadCancelled and RecursiveLoad.
        """
        old = await self._find(request)
        if old is not None and time.monotonic() < old.entry.refresh_at:
            return self._answer(request, old), old.entry
        try:
            found = await self._new(request, old)
        except RecursiveLoad:
            raise
        except Exception as error:
            if old is None or time.monotonic() >= old.entry.error_until:
                raise
            log.warning("%s: %s: %s; the old value is returned", request.words, type(error).__name__, error)
            found = None
        if found is None:
            assert old is not None
            return self._answer(request, old), None
        self._count(request, found.source)
        return found, self._in_l1(request)

    async def peek(self, request: Request) -> Lookup[Any] | None:
        """Return the value if a level has a fresh one. Nothing is loaded."""
        found = await self._find(request)
        if found is None or time.monotonic() >= found.entry.fresh_until:
            return None
        return self._answer(request, found)

    def _answer(self, request: Request, found: Stored) -> Lookup[Any]:
        stale = time.monotonic() >= found.entry.fresh_until
        self._count(request, found.source)
        found.entry.counts.stale += stale
        return Lookup(found.value, found.source, stale)

    def _count(self, request: Request, source: Source) -> None:
        counts = self.counts[request.cache]
        setattr(counts, source, getattr(counts, source) + 1)

    async def _find(self, request: Request) -> Stored | None:
        """Return what the first level has, fresh or not."""
        l2 = self._l2_of(request)
        entry = self._in_l1(request)
        if entry is not None:
            return Stored(entry, entry.read(), "l1")
        if l2 is None or not l2.available:
            return None
        if request.address.name in self.loads and not request.policy.extra:
            return None  # it is being loaded because it is not there
        return await self._in_l2(request, l2)

    async def peek_many(self, requests: Sequence[Request]) -> list[Lookup[Any] | None]:
        """`peek` for several requests, in one exchange with Valkey."""
        return await asyncio.gather(*map(self.peek, requests))

    async def store(self, request: Request, value: Any) -> None:
        """Store a value, whatever is in progress.

        Raises CacheUnavailable if Valkey does not take it, ValueTooLarge, and TypeError if it cannot be encoded.
        """
        l2 = self._l2_of(request)
        payload, kept = request.codec.encode(value)
        fresh = request.policy.lifetime(value)
        name = request.address.name
        if l2 is not None:
            if l2.is_oversized(payload):
                raise ValueTooLarge(request.words, len(payload), l2.largest)
            await self._insist(lambda: l2.write(request.address, payload, fresh + request.policy.extra), request.words)
        for l1 in (self.shared, self.alone):
            l1.invalidate([name])
        if l2 is None:
            self._keep(request, request.address.tags, payload, kept, fresh, self._ticket(request))

    async def invalidate(self, cache: str, tags: Sequence[str], names: Sequence[str] = (), *, alone: bool) -> None:
        """Invalidate every value that has any of `tags`, and the entries `names`: now, or when a transaction has ended.

        `alone` tells that the cache is in this process only. Raises CacheUnavailable if Valkey does not accept the
        invalidation after several tries.
        """
        work = partial(self._invalidate, cache, tags, names, alone=alone)
        if not after_commit(work):
            await work()

    async def _invalidate(self, cache: str, tags: Sequence[str], names: Sequence[str], *, alone: bool) -> None:
        self.counts[cache].invalidations += 1
        if not alone:
            l2 = self._connected_l2(cache)
            words = f"the invalidation of {', '.join(name.partition(':')[2] for name in (*tags, *names))}"
            await self._insist(lambda: l2.invalidate(tags, names), words)
        for l1 in (self.shared, self.alone):
            l1.invalidate([*tags, *names])
        for name in names:
            self._errors.pop(name, None)
        if tags:
            self._errors.clear()

    async def _insist(self, write: Callable[[], Awaitable[Any]], words: str) -> None:
        for attempt in range(_INVALIDATE_TRIES):
            if attempt:
                await asyncio.sleep(0.1)
            try:
                await write()
            except FAILURES as error:
                failure = error
            else:
                return
        raise CacheUnavailable(words) from failure

    def _l2_of(self, request: Request) -> L2 | None:
        return self._connected_l2(request.cache) if request.policy.uses_l2 else None

    def _connected_l2(self, cache: str) -> L2:
        if self._l2 is None:
            raise NoValkey(cache)
        return self._l2

    def _home(self, request: Request) -> L1:
        return self.shared if request.policy.uses_l2 and self.shared.on else self.alone

    def _ticket(self, request: Request) -> Ticket:
        home = self._home(request)
        return Ticket(home, home.ticket())

    def _in_l1(self, request: Request) -> Entry | None:
        if not request.policy.uses_l1:
            return None
        home = self._home(request)
        if time.monotonic() >= home.trusted_until:
            return None
        entry = home.get(request.address.name)
        return entry if entry is not None and entry.field == request.address.field else None

    async def _in_l2(self, request: Request, l2: L2) -> Stored | None:
        ticket = self._ticket(request)
        try:
            found = await l2.read(request.address)
        except FAILURES:
            return None
        return self._stored(request, found, ticket) if found is not None else None

    def _stored(self, request: Request, found: Found, ticket: Ticket) -> Stored | None:
        """Keep what was found in Valkey. What this version cannot read is a miss."""
        try:
            value = request.codec.decode(found.payload)
        except (ValueError, TypeError, LookupError):  # msgspec's and pydantic's errors are ValueErrors
            return None
        fresh = found.seconds_left - request.policy.extra
        return Stored(self._keep(request, found.tags, found.payload, value, fresh, ticket), value, "l2")

    def _keep(
        self, request: Request, tags: tuple[str, ...], payload: bytes, value: Any, fresh: float, ticket: Ticket
    ) -> Entry:
        """Return an entry with a value that is fresh for so many seconds. Put it into L1 if that is wanted."""
        policy, codec = request.policy, request.codec
        copied = policy.copy if policy.copy is not None else not codec.immutable
        entry = Entry(
            request.address.name,
            tags,
            None if copied else value,
            payload if copied else None,
            codec.decode,
            len(payload) if copied or codec.immutable else len(payload) * _DECODED,
            self.counts[request.cache],
            request.address.field,
        )
        now = time.monotonic()
        entry.fresh_until = now + fresh
        # One float for all of them where they are the same saves a tenth of the entry's memory.
        entry.stale_until = entry.fresh_until + policy.stale if policy.stale else entry.fresh_until
        entry.error_until = entry.fresh_until + policy.stale_if_error if policy.stale_if_error else entry.fresh_until
        entry.refresh_at = (
            entry.fresh_until - policy.ttl * (1 - policy.early) if policy.early < 1 else entry.fresh_until
        )
        if policy.uses_l2 and ticket.l1 is self.alone:
            entry.fresh_until = min(entry.fresh_until, now + DEGRADED_SECONDS)
            entry.stale_until = entry.error_until = entry.fresh_until
            entry.refresh_at = min(entry.refresh_at, entry.fresh_until)
        if policy.uses_l1:
            ticket.l1.put(entry, ticket.number)
        return entry

    async def _new(self, request: Request, old: Stored | None) -> Lookup[Any] | None:
        """Return a new value; None if the caller is to take the old one, and a new one is being loaded."""
        name = request.address.name
        if kept := self._errors.get(name):
            if time.monotonic() < kept[0]:
                raise kept[1].with_traceback(None)
            del self._errors[name]
        load = self.loads.get(name)
        if load is None or not self._is_current(request, load):
            load = self._begin(request)
        if old is None or time.monotonic() >= old.entry.stale_until:
            return await load.join()
        if not request.policy.soft_timeout:
            return None
        try:
            return await load.join(request.policy.soft_timeout)
        except TimeoutError:
            return None

    def _is_current(self, request: Request, load: Load) -> bool:
        """Whether nothing was invalidated since a load began."""
        ticket = load.ticket
        return ticket.l1 is self._home(request) and ticket.l1.is_current(load.names, ticket.number)

    def _begin(self, request: Request) -> Load:
        address = request.address
        names = (address.name, *address.tags)
        load = Load(names, self._ticket(request), request.words, self.loads.get(address.name))
        self.loads[address.name] = load
        load.start(self._load(request, load))

        def forget(task: "asyncio.Task[Lookup[Any]]") -> None:
            if self.loads.get(address.name) is load:
                del self.loads[address.name]
            kept = self._in_l1(request)
            if kept is not None and (task.cancelled() or task.exception()):
                # The old value serves for a moment, before the next try.
                kept.refresh_at = min(kept.usable_until, time.monotonic() + _REFRESH_AGAIN)

        assert load.task is not None
        load.task.add_done_callback(forget)
        return load

    async def _load(self, request: Request, load: Load) -> Lookup[Any]:
        """Load a value where no other process does; wait for it where one does."""
        l2 = self._l2 if request.policy.uses_l2 else None
        right: Right | None = None
        if l2 is not None:
            found = await self._win(request, l2)
            if isinstance(found, Lookup):
                return found
            right = found
        name, counts = request.address.name, self.counts[request.cache]
        counts.loads += 1
        stored = False
        if right is not None:
            self._rights[name] = right
        try:
            value = await limited(request.loader, request.policy.timeout, request.words)
            payload, kept = request.codec.encode(value)
            fresh = request.policy.lifetime(value)
            if l2 is None or right is None or l2.is_oversized(payload):
                self._keep(request, request.address.tags, payload, kept, fresh, load.ticket)
                counts.oversized += right is not None
            else:  # Valkey will tell of this write, too: L1 takes the value when it is next read
                with contextlib.suppress(*FAILURES):  # the value is valid, it is only not stored
                    stored = await l2.write(request.address, payload, fresh + request.policy.extra, right)
            return Lookup(kept, "loader")
        except Exception as error:
            if not isinstance(error, request.policy.errors):
                counts.errors += 1
            else:
                self._errors[name] = (time.monotonic() + request.policy.errors_ttl, error)
            raise
        finally:
            self._rights.pop(name, None)
            if l2 is not None and right is not None and not stored:
                await self._release(l2, name, right)

    async def _release(self, l2: L2, name: str, right: Right) -> None:
        with contextlib.suppress(*FAILURES):  # it ends by itself
            await l2.release(name, right)

    async def _win(self, request: Request, l2: L2) -> Lookup[Any] | Right | None:
        """Return the right to load; the value, if another process loads it first; None if Valkey does not answer."""
        name = request.address.name
        deadline = time.monotonic() + request.policy.timeout
        waited = False
        assert self._link is not None
        while l2.available and time.monotonic() < deadline:
            with self._link.watching(name) as changed:
                ticket = self._ticket(request)
                try:
                    right = await l2.begin(request.address)
                    found = right.found if isinstance(right, Right) else None
                    if isinstance(right, Right):
                        stored = self._stored(request, found, ticket) if found is not None else None
                        if stored is None or time.monotonic() >= stored.entry.refresh_at:
                            return right
                        await self._release(l2, name, right)
                        return Lookup(stored.value, "l2")
                    if not waited:
                        waited = True
                        self.counts[request.cache].waits += 1
                    async with asyncio.timeout(min(right + 0.05, LOCK_SECONDS)):
                        await changed.wait()
                    stored = await self._in_l2(request, l2)
                    if stored is not None and time.monotonic() < stored.entry.refresh_at:
                        return Lookup(stored.value, "l2")
                except TimeoutError:
                    continue
                except FAILURES:
                    return None
        return None

    async def _renew(self) -> float:
        """Keep the rights of the loads that are running."""
        assert self._l2 is not None
        for name, right in list(self._rights.items()):
            try:
                await self._l2.renew(name, right)
            except FAILURES:
                break
        return LOCK_SECONDS / 4

    async def _report(self) -> float:
        """Say in Valkey what was done here."""
        assert self._link is not None
        if self._link.wire is not None and self.counts:
            said = report.Report(
                replica=self._replica,
                at=self._link.server_time(),
                entries=len(self.shared) + len(self.alone),
                bytes=self.shared.bytes + self.alone.bytes,
                evictions=self.shared.evictions + self.alone.evictions,
                caches={name: counts.as_dict() for name, counts in self.counts.items()},
            )
            with contextlib.suppress(*FAILURES):
                await report.write(self._link.wire, self._prefix, self._process, said)
        return report.EVERY


slot: ConnectionHolder[CacheSystem] = ConnectionHolder("the cache")
