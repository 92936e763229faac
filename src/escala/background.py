"""Background work: a task that is repeated in a loop, and the report of a bug in it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

_AFTER_BUG = 5.0


class BackgroundLoop:
    """Awaits `task` again and again. Each run returns the seconds to wait before the next one.

    The task itself handles expected errors, such as an unavailable engine. An exception that escapes from it is a bug.
    It is reported, and the loop continues, unless the loop is `fatal`: then it ends, and `ended` raises.
    """

    def __init__(self, name: str, task: Callable[[], Awaitable[float]], *, fatal: bool = False) -> None:
        self._name = name
        self._work = task
        self._fatal = fatal
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the loop. A second call does nothing."""
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name=self._name)

    async def ended(self) -> None:
        """Wait for the end of a loop that was started; raise the bug that ended it."""
        if self._running is not None:
            await asyncio.shield(self._running)

    async def stop(self) -> None:
        """Cancel the loop and wait until it has ended. Does nothing if the loop is not running."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()  # may be swallowed by a library; the loop ends after that run, too
            with contextlib.suppress(asyncio.CancelledError, *([Exception] if self._fatal else [])):
                await running

    async def _run(self) -> None:
        while self._running is asyncio.current_task():
            try:
                pause = await self._work()
            except Exception as error:
                if self._fatal:
                    raise
                report_bug(f"the {self._name} failed; it will run again", error)
                pause = _AFTER_BUG
            if self._running is asyncio.current_task():
                await asyncio.sleep(pause)


def report_bug(message: str, error: BaseException) -> None:
    """Report an error that no caller awaits.

    It goes to the event loop's exception handler, which logs it with its traceback.
    """
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
