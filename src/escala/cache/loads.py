"""Loads: each value is loaded once at a time in a process, however many callers want it.

A load is a task of its own, so a caller that is cancelled takes nothing from the others. It ends in any case: its
loader gets a time limit, and what would wait for itself is refused.
"""

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, NamedTuple, TypeVar

from escala.cache.request import Loaded, Source, Ticket
from escala.errors import LoadCancelled, LoadTimedOut, RecursiveLoad

R = TypeVar("R")


class Lookup(NamedTuple, Generic[R]):
    """A value and its source: the level that had it, or "loader". `stale` tells that it is older than its ttl."""

    value: R
    source: Source
    stale: bool = False


class NotKept(Exception):
    """Raised by a loader whose result is not to be kept. It reaches the callers even if there is an old value."""

    remembered = 0.0
    """For how many seconds later callers get it without a load."""


class Load:
    """A load in progress."""

    def __init__(self, names: tuple[str, ...], ticket: Ticket, words: str, earlier: "Load | None") -> None:
        self.names = names
        """The entry and its tags. If one of them is invalidated meanwhile, later callers do not join."""
        self.ticket = ticket
        self.words = words
        """What is loaded, in words."""
        self.earlier = earlier
        """An earlier load of the same entry, which has the right to load it."""
        self.waits_for: set[Load] = set()
        """The loads that the loader waits for."""
        self.task: asyncio.Task[Loaded] | None = None

    def start(self, work: Coroutine[Any, Any, Loaded]) -> None:
        """Run `work` so that everything it calls knows that it is called by this load."""
        context = contextvars.copy_context()
        context.run(_current.set, self)
        self.task = asyncio.get_running_loop().create_task(work, name=f"load {self.words}", context=context)
        self.task.add_done_callback(self._end)

    @property
    def ended(self) -> bool:
        return self.task is not None and self.task.done()

    async def join(self, seconds: float | None = None) -> Loaded:
        """Wait for the value, at most `seconds` (then TimeoutError). Raises the exception of the load.

        Raises RecursiveLoad if the caller belongs to a load that this one waits for.
        """
        assert self.task is not None
        caller = _current.get()
        if caller is None or caller.ended:
            return await self._outcome(seconds)
        if self._reaches(caller):
            raise RecursiveLoad(self.words)
        caller.waits_for.add(self)
        try:
            return await self._outcome(seconds)
        finally:
            caller.waits_for.discard(self)

    async def _outcome(self, seconds: float | None) -> Loaded:
        assert self.task is not None
        await asyncio.wait({self.task}, timeout=seconds)
        if not self.task.done():
            raise TimeoutError
        if self.task.cancelled():
            raise LoadCancelled(self.words)
        return self.task.result()

    def _reaches(self, other: "Load") -> bool:
        waiting, seen = [self], {self}
        while waiting:
            load = waiting.pop()
            if load is other:
                return True
            new = {*load.waits_for, *([load.earlier] if load.earlier else [])} - seen
            seen |= new
            waiting += new
        return False

    def _end(self, task: "asyncio.Task[Loaded]") -> None:
        self.earlier = None
        if not task.cancelled():
            task.exception()  # it counts as seen: it may be that nobody waits any more


_current: contextvars.ContextVar[Load | None] = contextvars.ContextVar("load", default=None)


async def limited(loader: Callable[[], Awaitable[Any]], seconds: float, words: str) -> Any:
    """Return what `loader` returns within `seconds`; raise LoadTimedOut after that, whatever the loader does then."""
    work = loader()
    if not inspect.isawaitable(work):
        raise TypeError(f"{words}: the loader must be an async function")
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise LoadTimedOut(words, seconds)
        if task.cancelled():
            raise LoadCancelled(words)
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
