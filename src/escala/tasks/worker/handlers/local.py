"""Where the handlers of a process run, and how their outcomes come back to its own event loop."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from escala.tasks.worker.attempt import Attempt, Outcome
from escala.tasks.worker.handlers.event_loop import HandlerLoop
from escala.tasks.worker.handlers.threads import HandlerThreads


class Handlers:
    """Runs async handlers on a loop of their own, and plain ones in threads. `done` is called on the caller's loop."""

    def __init__(
        self, context: AbstractAsyncContextManager[Any], done: Callable[[Sequence[tuple[Attempt, Outcome]]], None]
    ) -> None:
        self._done = done
        self._outcomes: deque[tuple[Attempt, Outcome]] = deque()
        self._told = False
        self._main: asyncio.AbstractEventLoop | None = None
        self._loop = HandlerLoop(context, self._deliver)
        self._threads = HandlerThreads(self._deliver)

    async def open(self) -> None:
        self._main = asyncio.get_running_loop()
        await self._loop.open()

    async def close(self) -> None:
        await self._loop.close()

    def start(self, attempts: Sequence[Attempt]) -> None:
        """Begin attempts."""
        on_loop = [attempt for attempt in attempts if attempt.task.is_async]
        if on_loop:
            self._loop.start(on_loop)
        if len(on_loop) != len(attempts):
            self._threads.start([attempt for attempt in attempts if not attempt.task.is_async])

    def interrupt(self, attempt: Attempt) -> None:
        """Tell a handler to stop. `attempt.interrupted` says why. A plain handler may look at it, or not."""
        attempt.context.cancelled = True
        if attempt.task.is_async:
            self._loop.interrupt(attempt)

    def is_blocked_by(self, attempt: Attempt) -> bool:
        """Whether the loop executes the code of this attempt at this moment."""
        return attempt.runner is not None and self._loop.busy_with() is attempt.runner

    def _deliver(self, attempt: Attempt, outcome: Outcome) -> None:
        """Take an outcome in any thread. Many outcomes wake the caller's loop once."""
        self._outcomes.append((attempt, outcome))
        if not self._told:
            self._told = True
            assert self._main is not None
            try:
                self._main.call_soon_threadsafe(self._take)
            except RuntimeError:  # the process ends, and its loop is closed
                return

    def _take(self) -> None:
        self._told = False
        ended = [self._outcomes.popleft() for _ in range(len(self._outcomes))]
        self._done(ended)
