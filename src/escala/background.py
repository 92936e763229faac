"""Work beside all other work: a loop that is done again and again, and how a bug in such work is reported."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

_AFTER_BUG = 5.0


class BackgroundLoop:
    """Awaits `task`, which returns the seconds until it is due again.

    A bug in it is reported, and it goes on. What the task handles by itself, such as an engine that is away, never
    comes here.
    """

    def __init__(self, name: str, task: Callable[[], Awaitable[float]]) -> None:
        self._name = name
        self._work = task
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; started twice, it runs once."""
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """Cancel what is under way, and wait for its end; stopped twice, or never started, it is stopped."""
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
                report_bug(f"the {self._name} failed, and goes on", error)
                pause = _AFTER_BUG
            await asyncio.sleep(pause)


def report_bug(message: str, error: BaseException) -> None:
    """Report an error that nobody waits for to the event loop's handler, which logs it with its traceback."""
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
