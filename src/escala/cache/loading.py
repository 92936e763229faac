"""How a value is loaded: by one process at a time, while the others wait for it."""

import asyncio
import contextlib
import copy
import time
from collections.abc import Iterable
from typing import NamedTuple

from escala.cache.levels import Levels
from escala.cache.loads import Load, NotKept, limited
from escala.cache.request import Loaded, Request
from escala.cache.valkey.l2 import L2, LOCK_SECONDS, Right
from escala.cache.valkey.link import Link
from escala.cache.valkey.wire import FAILURES
from escala.errors import LoadTimedOut

_REFRESH_AGAIN = 1.0
"""Seconds after which a refresh that failed is tried again."""
_MOST_ERRORS = 1000
"""How many exceptions are kept; the oldest go first."""
RENEW_EVERY = LOCK_SECONDS / 4

_Place = tuple[str, str]


class KeptError(NamedTuple):
    until: float
    error: Exception
    names: tuple[str, ...]


class Loading:
    """The loads of one process, their rights in Valkey, and the exceptions that are to be kept."""

    def __init__(self, levels: Levels, link: Link | None) -> None:
        self._levels = levels
        self._link = link
        self.loads: dict[_Place, Load] = {}
        self._rights: dict[_Place, Right] = {}
        self._errors: dict[_Place, KeptError] = {}

    def load(self, request: Request) -> Load:
        """Return the load to wait for: the one in progress, or a new one if something was invalidated meanwhile."""
        return self.loads[request.place] if self.is_loading(request) else self._begin(request)

    def is_loading(self, request: Request) -> bool:
        """Whether a load is in progress that a caller may join: nothing was invalidated since it began."""
        load = self.loads.get(request.place)
        if load is None:
            return False
        return load.ticket.l1 is self._levels.home(request) and load.ticket.is_current(load.names)

    def error(self, request: Request) -> Exception | None:
        """Return the exception that is kept for a request."""
        kept = self._errors.get(request.place)
        if kept is None:
            return None
        if time.monotonic() >= kept.until:
            del self._errors[request.place]
            return None
        return _copied(kept.error)

    def forget_errors(self, names: Iterable[str] | None = None) -> None:
        """Keep no exception whose entry or tag is among `names`; by default, none at all."""
        if not self._errors:
            return
        gone = None if names is None else set(names)
        for place, kept in list(self._errors.items()):
            if gone is None or not gone.isdisjoint(kept.names):
                del self._errors[place]

    async def renew(self) -> float:
        """Keep the rights of the loads that are running."""
        assert self._levels.l2 is not None
        for (name, _), right in list(self._rights.items()):
            try:
                await self._levels.l2.renew(name, right)
            except FAILURES:
                break
        return RENEW_EVERY

    async def close(self) -> None:
        """Cancel all loads, and wait until they have ended."""
        tasks = [load.task for load in self.loads.values() if load.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, request: Request) -> Load:
        place = request.place
        load = Load(request.names, self._levels.ticket(request), request.words, self.loads.get(place))
        self.loads[place] = load
        load.start(self._run(request, load))

        def forget(task: "asyncio.Task[Loaded]") -> None:
            if self.loads.get(place) is load:
                del self.loads[place]
            kept = self._levels.in_l1(request)
            if kept is not None and (task.cancelled() or task.exception()):
                # The old value serves for a moment, before the next try.
                kept.refresh_at = min(kept.usable_until, time.monotonic() + _REFRESH_AGAIN)

        assert load.task is not None
        load.task.add_done_callback(forget)
        return load

    async def _run(self, request: Request, load: Load) -> Loaded:
        """Load a value where no other process does; wait for it where one does."""
        l2 = self._levels.l2 if request.policy.uses_l2 else None
        right: Right | None = None
        if l2 is not None:
            if load.earlier is not None and (doomed := self._rights.pop(request.place, None)) is not None:
                await self._release(l2, request.address.name, doomed)  # its value is invalid before it is there
            found = await self._win(request, l2, time.monotonic() + request.policy.timeout)
            if isinstance(found, Loaded):
                return found
            right = found
        load.earlier = None  # it has ended, or does not hold this one up
        counts, written = self._levels.counts[request.cache], False
        counts.loads += 1
        if right is not None:
            self._rights[request.place] = right
        try:
            loaded, written = await self._call(request, load, l2, right)
            return loaded
        except Exception as error:
            if isinstance(error, NotKept):
                self._keep_error(request, load, error, error.remembered)
            elif isinstance(error, request.policy.errors):
                self._keep_error(request, load, error, request.policy.errors_ttl)
            else:
                counts.errors += 1
            raise
        finally:
            if self._rights.get(request.place) is right:
                self._rights.pop(request.place, None)
            if l2 is not None and right is not None and not written:
                await self._release(l2, request.address.name, right)

    async def _call(self, request: Request, load: Load, l2: L2 | None, right: Right | None) -> tuple[Loaded, bool]:
        """Call the loader and store its value; return it, and whether it was written to Valkey."""
        policy, levels = request.policy, self._levels
        value = await limited(request.loader, policy.timeout, request.words)
        payload, kept = request.codec.encode(value)
        fresh = policy.lifetime(value)
        written = False
        if l2 is None or right is None or l2.is_oversized(payload):
            levels.keep(request, request.address.tags, payload, kept, fresh, fresh, load.ticket)
            levels.counts[request.cache].oversized += right is not None
        else:  # Valkey will tell of this write, too: L1 takes the value when it is next read
            with contextlib.suppress(*FAILURES):  # the value is valid, it is only not stored
                written = await l2.write(request.address, payload, fresh, policy.extra, right)
        return Loaded(kept, payload, "loader"), written

    def _keep_error(self, request: Request, load: Load, error: Exception, seconds: float) -> None:
        if not seconds or not load.ticket.is_current(load.names):
            return
        now = time.monotonic()
        self._errors.pop(request.place, None)
        self._errors[request.place] = KeptError(now + seconds, _copied(error), load.names)
        if len(self._errors) > _MOST_ERRORS:
            self._errors = {place: kept for place, kept in self._errors.items() if kept.until > now}
        if len(self._errors) > _MOST_ERRORS:
            del self._errors[next(iter(self._errors))]

    async def _release(self, l2: L2, name: str, right: Right) -> None:
        with contextlib.suppress(*FAILURES):  # it ends by itself
            await l2.release(name, right)

    async def _win(self, request: Request, l2: L2, deadline: float) -> Loaded | Right | None:
        """Return the right to load; the value, if another process loads it first; None if Valkey does not answer.

        Raises LoadTimedOut at the deadline.
        """
        waited = False
        assert self._link is not None
        while l2.available:
            with self._link.watching(request.address.name) as changed:
                try:
                    found = await self._try(request, l2)
                    if not isinstance(found, float):
                        return found
                    if not waited:
                        waited = True
                        self._levels.counts[request.cache].waits += 1
                    left = deadline - time.monotonic()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(min(found + 0.05, left)):
                            await changed.wait()
                except FAILURES:
                    return None
            if time.monotonic() >= deadline:
                raise LoadTimedOut(request.words, request.policy.timeout)
            stored = await self._levels.in_l2(request, l2)
            if stored is not None and time.monotonic() < stored.entry.refresh_at:
                return Loaded(stored.value, stored.payload, "l2")
        return None

    async def _try(self, request: Request, l2: L2) -> Loaded | Right | float:
        """Return the right to load, or a value that is fresh by now, or the seconds for which another has the right."""
        ticket = self._levels.ticket(request)
        right = await l2.begin(request.address)
        if not isinstance(right, Right) or right.found is None:
            return right
        stored = self._levels.stored(request, right.found, ticket)
        if stored is None or time.monotonic() >= stored.entry.refresh_at:
            return right
        await self._release(l2, request.address.name, right)
        return Loaded(stored.value, stored.payload, "l2")


def _copied(error: Exception) -> Exception:
    """Return an exception for one more caller: without the traceback, which holds what the loader worked with."""
    try:
        made = copy.copy(error)
    except Exception:
        return error.with_traceback(None)
    made.__cause__ = error.__cause__
    return made
