"""Runs handlers on an event loop of their own, in a thread of their own.

A handler that blocks delays other handlers, but it delays neither the renewal of leases nor /health.
"""

import asyncio
import os
import sys
import threading
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any

from escala.tasks.job import ReportProgress, progress_of_attempt
from escala.tasks.task import Task

EXIT_LOOP_DIED = 70


class AttemptTimedOut(Exception):
    """An attempt took longer than its task's timeout."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no result within {seconds:g} s")


class HandlerThread:
    """Runs handlers inside `context`, which opens their connections (database, cache) on their event loop."""

    def __init__(self, context: AbstractAsyncContextManager[Any], threads: int) -> None:
        self._context = context
        self._threads = threads
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="handlers", daemon=True)
        self._opened: Future[None] = Future()
        self._stop = asyncio.Event()

    async def start(self) -> None:
        self._thread.start()
        await asyncio.wrap_future(self._opened)

    async def stop(self) -> None:
        """Close the context and end the loop. Threads of hanging handlers end only with the process."""
        self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join, 5)

    async def call(self, task: Task[..., Any], arguments: dict[str, Any], report: ReportProgress) -> Any:
        """Run one attempt and return the handler's result.

        Raises AttemptTimedOut if the attempt exceeds the task's timeout, and any exception of the handler.
        """
        work = asyncio.run_coroutine_threadsafe(self._attempt(task, arguments, report), self._loop)
        return await asyncio.wrap_future(work)

    async def _attempt(self, task: Task[..., Any], arguments: dict[str, Any], report: ReportProgress) -> Any:
        progress_of_attempt.set(report)
        try:
            async with asyncio.timeout(task.timeout) as deadline:
                if task.is_async:
                    return await task.function(**arguments)
                return await asyncio.to_thread(task.function, **arguments)
        except TimeoutError:
            if deadline.expired():
                raise AttemptTimedOut(task.timeout) from None
            raise  # raised by the handler itself
        except SystemExit as error:  # it would end the loop, and every other job with it
            raise RuntimeError(f"the handler called sys.exit({error.code!r})") from error

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException:
            # The loop has ended, for example because of sys.exit in an asyncio task that a handler started. No job can
            # run without it, so the process ends too. Other workers take its jobs back. A job that ends the loop every
            # time is recorded as failed.
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(EXIT_LOOP_DIED)

    async def _serve(self) -> None:
        executor = ThreadPoolExecutor(self._threads, thread_name_prefix="handler")
        asyncio.get_running_loop().set_default_executor(executor)
        try:
            async with self._context:
                self._opened.set_result(None)
                await self._stop.wait()
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
