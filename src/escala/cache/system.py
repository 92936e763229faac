"""The cache of one process: both levels, the link to Valkey, and what is asked of them."""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from valkey.exceptions import ResponseError

from escala.background import BackgroundLoop
from escala.cache.l1 import Entry
from escala.cache.levels import Levels
from escala.cache.loading import Loading
from escala.cache.loads import Lookup, NotKept
from escala.cache.request import Request, Source, Stored
from escala.cache.valkey import report
from escala.cache.valkey.connect import Connector
from escala.cache.valkey.l2 import L2
from escala.cache.valkey.link import Link
from escala.cache.valkey.wire import FAILURES
from escala.database import after_commit
from escala.errors import CacheUnavailable, CalledOnLoop, RecursiveLoad, ValueTooLarge
from escala.holder import ConnectionHolder

T = TypeVar("T")

_PATIENCE = 2.0
"""How long an invalidation or a value waits for Valkey, in seconds: about as long as it takes to connect again."""

log = logging.getLogger("escala.cache")


@dataclass(frozen=True)
class Limits:
    entries: int = 10_000
    """The maximum number of entries in L1; 0 turns L1 off."""
    bytes: int = 64 * 1024**2
    """The maximum size of L1: of what is in Valkey too, and as much again of what is in this process alone."""
    value: int = 4 * 1024**2
    """The maximum size of a value in Valkey, compressed."""
    compress: int = 4 * 1024
    """The size from which values in Valkey are compressed."""


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
        self.loop: asyncio.AbstractEventLoop | None = None
        self._prefix = report.prefix_of(project)
        self._link = Link(Connector(url, self._prefix), self._prefix, self) if url else None
        l2 = L2(self._link, self._prefix, limits.compress, limits.value) if self._link else None
        self.levels = Levels(limits.entries, limits.bytes, l2)
        self.loading = Loading(self.levels, self._link)
        self.counts = self.levels.counts
        self.calls = self.levels.calls
        self._renewing = BackgroundLoop("renewal of cache locks", self.loading.renew)
        self._reporting = BackgroundLoop("reports on the cache", self._report)
        self._replica = replica or f"{socket.gethostname()}:{os.getpid()}"
        self._process = f"{self._replica} {os.urandom(4).hex()}"

    @property
    def connected(self) -> bool:
        """Whether Valkey answers. While it does not, lookups go to the loader, and its values live for a second."""
        return self.levels.shared.on

    async def open(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.levels.begin()
        if self._link is not None:
            await self._link.start()
            self._renewing.start()
            self._reporting.start()

    async def close(self) -> None:
        await self.loading.close()
        await self._renewing.stop()
        await self._reporting.stop()
        if self._link is not None:
            if self._link.wire is not None and self.counts:
                with contextlib.suppress(*FAILURES):
                    await report.remove(self._link.wire, self._prefix, self._process)
            await self._link.stop()
        self.levels.end()

    # What the link says.

    def link_up(self) -> None:
        self.levels.shared.switch_on()

    def link_down(self) -> None:
        self.levels.shared.switch_off()

    def trusted(self, until: float) -> None:
        self.levels.shared.trusted_until = until

    def changed(self, names: Iterable[str]) -> None:
        self._invalidate_here(list(names))

    def all_changed(self) -> None:
        trusted = self.levels.shared.trusted_until
        self.levels.shared.switch_on()
        self.levels.shared.trusted_until = trusted
        self.loading.forget_errors()

    # What callers ask.

    async def lookup(self, request: Request) -> tuple[Lookup[Any], Entry | None]:
        """Return the value, from the first level that has it or from the loader, and its entry in L1, if it has one.

        Raises every exception of the loader, LoadTimedOut, LoadCancelled and RecursiveLoad.
        """
        # Who joins a load need not ask Valkey, unless it may have a value that serves meanwhile.
        waits = not request.policy.extra and request.policy.early == 1 and self.loading.is_loading(request)
        old = await self._find(request, in_l2=not waits)
        if old is not None and time.monotonic() < old.entry.refresh_at:
            return self._answer(request, old), old.entry
        try:
            found = await self._new(request, old)
        except (RecursiveLoad, NotKept):
            raise
        except Exception as error:
            if old is None or time.monotonic() >= old.entry.usable_until:
                raise
            if not isinstance(error, request.policy.errors):
                log.warning("%s: %s: %s; the old value is returned", request.words, type(error).__name__, error)
            found = None
        if found is None:
            assert old is not None
            return self._answer(request, old), None
        self._count(request, found.source)
        return found, self.levels.in_l1(request)

    async def peek(self, request: Request) -> Lookup[Any] | None:
        """Return the value if a level has a fresh one. Nothing is loaded."""
        found = await self._find(request)
        if found is None or time.monotonic() >= found.entry.fresh_until:
            return None
        return self._answer(request, found)

    async def peek_many(self, requests: Sequence[Request]) -> list[Lookup[Any] | None]:
        """`peek` for several requests at the same time."""
        return await asyncio.gather(*map(self.peek, requests))

    async def store(self, request: Request, value: Any) -> None:
        """Store a value, whatever is in progress.

        Raises CacheUnavailable if Valkey does not take it, ValueTooLarge, and TypeError if it cannot be encoded.
        """
        l2, policy, levels = self.levels.l2_of(request), request.policy, self.levels
        payload, kept = request.codec.encode(value)
        fresh = policy.lifetime(value)
        if l2 is not None:
            if l2.is_oversized(payload):
                raise ValueTooLarge(request.words, len(payload), l2.largest)
            await self._insist(
                lambda: l2.write(request.address, payload, fresh, policy.extra), f"storing {request.words}"
            )
        self._invalidate_here([request.address.name])
        if l2 is None:
            levels.keep(request, request.address.tags, payload, kept, fresh, fresh, levels.ticket(request))

    async def invalidate(self, cache: str, tags: Sequence[str], names: Sequence[str] = (), *, alone: bool) -> None:
        """Invalidate every value that has any of `tags`, and the entries `names`: now, or when a transaction has ended.

        `alone` tells that the cache is in this process only. Raises CacheUnavailable if Valkey does not accept the
        invalidation within two seconds.
        """
        work = partial(self._invalidate, cache, tags, names, alone=alone)
        if not after_commit(work):
            await work()

    async def _invalidate(self, cache: str, tags: Sequence[str], names: Sequence[str], *, alone: bool) -> None:
        self.counts[cache].invalidations += 1
        concerned = [*tags, *names]
        self._invalidate_here(concerned)
        if not alone:
            l2 = self.levels.required_l2(cache)
            words = f"the invalidation of {', '.join(name.partition(':')[2] for name in concerned)}"
            await self._insist(lambda: l2.invalidate(tags, names), words)
            self._invalidate_here(concerned)  # again, as it may have been read from Valkey meanwhile

    def _invalidate_here(self, names: list[str]) -> None:
        self.levels.invalidate(names)
        self.loading.forget_errors(names)

    async def _insist(self, write: Callable[[], Awaitable[Any]], words: str) -> None:
        """Write to Valkey; if the connection is lost, wait for the next one. Raises CacheUnavailable."""
        assert self._link is not None
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                await write()
            except FAILURES as error:
                left = end - time.monotonic()
                if left <= 0 or (isinstance(error, ResponseError) and self._link.wire is not None):
                    raise CacheUnavailable(words, str(error)) from error
                await asyncio.sleep(0.02)  # the loss of a connection may not be known yet
                await self._link.wait_up(left)
            else:
                return

    def _answer(self, request: Request, found: Stored) -> Lookup[Any]:
        stale = time.monotonic() >= found.entry.fresh_until
        self._count(request, found.source)
        found.entry.counts.stale += stale
        return Lookup(found.value, found.source, stale)

    def _count(self, request: Request, source: Source) -> None:
        counts = self.counts[request.cache]
        setattr(counts, source, getattr(counts, source) + 1)

    async def _find(self, request: Request, *, in_l2: bool = True) -> Stored | None:
        """Return what the first level has, fresh or not."""
        l2 = self.levels.l2_of(request)
        entry = self.levels.in_l1(request)
        if entry is not None:
            return Stored(entry, entry.read(), "l1")
        if l2 is None or not l2.available or not in_l2:
            return None
        return await self.levels.in_l2(request, l2)

    async def _new(self, request: Request, old: Stored | None) -> Lookup[Any] | None:
        """Return a new value; None if the caller is to take the old one, and a new one is being loaded."""
        error = self.loading.error(request)
        if error is not None:
            raise error  # where there is an old value, the caller takes that
        load = self.loading.load(request)
        now = time.monotonic()
        seconds: float | None = None
        if old is not None and now < max(old.entry.fresh_until, old.entry.stale_until):
            seconds = request.policy.soft_timeout if now >= old.entry.fresh_until else 0.0
            if not seconds:
                return None
        try:
            loaded = await load.join(seconds)
        except TimeoutError:
            if seconds is None:
                raise
            return None
        return Lookup(loaded.value_for(request), loaded.source)

    async def _report(self) -> float:
        """Say in Valkey what was done here."""
        assert self._link is not None
        levels = (self.levels.shared, self.levels.alone)
        if self._link.wire is not None and self.counts:
            said = report.Report(
                replica=self._replica,
                at=self._link.server_time(),
                entries=sum(map(len, levels)),
                bytes=sum(level.bytes for level in levels),
                evictions=sum(level.evictions for level in levels),
                caches={name: counts.as_dict() for name, counts in self.counts.items()},
            )
            with contextlib.suppress(*FAILURES):
                await report.write(self._link.wire, self._prefix, self._process, said)
        return report.EVERY


slot: ConnectionHolder[CacheSystem] = ConnectionHolder("the cache")


def wait_in_thread(work: Coroutine[Any, Any, T], what: str) -> T:
    """Run a coroutine on the cache's event loop, and wait for it in this thread.

    `what` is what cannot be called on an event loop's thread: there, CalledOnLoop is raised. Raises NotConnected before
    the cache is connected, and every exception of the coroutine.
    """
    try:
        loop = slot.get().loop
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            raise CalledOnLoop(what)
    except BaseException:
        work.close()  # it would be reported as never awaited
        raise
    assert loop is not None
    return asyncio.run_coroutine_threadsafe(work, loop).result()
