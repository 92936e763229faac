"""Background work: a task that is repeated in a loop, and the report of a bug in it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

_AFTER_BUG = 5.0


class BackgroundLoop:
    """Awaits `task` again and again. Each run returns the seconds to wait before the next one.

    An exception that escapes from `task` is a bug: it is reported, and the loop continues. The task itself handles
    expected errors, such as an unavailable engine.
    """

    def __init__(self, name: str, task: Callable[[], Awaitable[float]]) -> None:
        self._name = name
        self._work = task
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the loop. A second call does nothing."""
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """Cancel the loop and wait until it has ended. Does nothing if the loop is not running."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    async def _run(self) -> None:
        while True:
            try:
                pause = await self._work()
            except Exception as error:
                report_bug(f"the {self._name} failed; it will run again", error)
                pause = _AFTER_BUG
            await asyncio.sleep(pause)


def report_bug(message: str, error: BaseException) -> None:
    """Report an error that no caller awaits.

    It goes to the event loop's exception handler, which logs it with its traceback.
    """
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
