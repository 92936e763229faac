"""Runs async handlers on an event loop of their own, in a thread of their own.

A handler that blocks delays other handlers, but it delays neither the renewal of the lease nor /health.
"""

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Any

import uvloop

from escala.tasks.context import current_job
from escala.tasks.worker.attempt import Attempt, Outcome, raised, succeeded

log = logging.getLogger("escala.worker")

EXIT_LOOP_DIED = 70

Deliver = Callable[[Attempt, Outcome], None]
"""Takes the outcome of an attempt, in any thread."""


class HandlerLoop:
    """Runs handlers inside `context`, which opens their connections (database, cache) on their event loop."""

    def __init__(self, context: AbstractAsyncContextManager[Any], deliver: Deliver) -> None:
        self._context = context
        self._deliver = deliver
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="handlers", daemon=True)
        self._opened: Future[None] = Future()
        self._stop = asyncio.Event()

    async def open(self) -> None:
        """Start the thread, and enter the context; raise what that raises."""
        self._thread.start()
        await asyncio.wrap_future(self._opened)

    def start(self, attempts: Sequence[Attempt]) -> None:
        """Begin attempts. Their outcomes are delivered."""
        self._loop.call_soon_threadsafe(self._begin, attempts)

    def interrupt(self, attempt: Attempt) -> None:
        """Cancel a handler. `attempt.interrupted` says why."""
        self._loop.call_soon_threadsafe(_cancel, attempt)

    def busy_with(self) -> "asyncio.Task[Any] | None":
        """Return the task that the loop executes at this moment."""
        return asyncio.current_task(self._loop)

    async def close(self) -> None:
        """Leave the context and end the loop. A handler that blocks it ends only with the process."""
        self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join, 2)

    def _begin(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            attempt.runner = self._loop.create_task(self._attempt(attempt))

    async def _attempt(self, attempt: Attempt) -> None:
        current_job.set(attempt.context)
        try:
            arguments = attempt.arguments()
            attempt.began = time.monotonic()
            outcome = succeeded(attempt, await attempt.task.function(**arguments))
        except BaseException as error:  # SystemExit and the like would end the loop, and every other job with it
            outcome = raised(attempt, error)
        self._deliver(attempt, outcome)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        serving = self._loop.create_task(self._serve(), name="handlers")
        while not serving.done():
            try:
                self._loop.run_until_complete(serving)
            except BaseException as error:
                if serving.done():
                    break
                # A task or a callback that a handler started raised SystemExit or the like, or stopped the loop.
                log.warning("a handler ended the event loop, which goes on: %s: %s", type(error).__qualname__, error)
        if not serving.cancelled() and (failure := serving.exception()) is not None:
            # The handlers' connections could not be closed, or worse. Without them no job can run.
            traceback.print_exception(failure)
            sys.stderr.flush()
            os._exit(EXIT_LOOP_DIED)
        self._loop.close()

    async def _serve(self) -> None:
        try:
            async with self._context:
                self._opened.set_result(None)
                await self._stop.wait()
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)


def _cancel(attempt: Attempt) -> None:
    attempt.interrupt_arrived = True
    if attempt.runner is not None:
        attempt.runner.cancel()
