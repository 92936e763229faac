"""Where handlers run: an event loop of their own in a thread of their own.

A handler that blocks can then hold up its neighbours, but neither the renewal of leases nor /health.
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
    """Runs handlers inside `context`, which opens what they use (database, cache) on their loop."""

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
        """Close the context and end the loop; threads of handlers that hang end with the process."""
        self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join, 5)

    async def call(self, task: Task[..., Any], arguments: dict[str, Any], report: ReportProgress) -> Any:
        """Run one attempt and return what the handler returned; AttemptTimedOut when its time is up."""
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
            raise  # the handler's own
        except SystemExit as error:  # would end the loop, and with it every other job
            raise RuntimeError(f"the handler called sys.exit({error.code!r})") from error

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException:
            # Such as sys.exit in a task that a handler started: asyncio ends the loop. Without it no job can run, so
            # the process ends too; its jobs are rescued, and one that does this every time is set aside.
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
