"""A duty that is done again and again beside all others."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

_AFTER_ERROR = 5.0


class Loop:
    """Awaits `duty`, which returns the seconds until it is due again. A bug in it is reported, and it goes on."""

    def __init__(self, name: str, duty: Callable[[], Awaitable[float]]) -> None:
        self._name = name
        self._duty = duty
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                pause = await self._duty()
            except Exception as error:
                message = {"message": f"the {self._name} failed, and goes on", "exception": error}
                asyncio.get_running_loop().call_exception_handler(message)
                pause = _AFTER_ERROR
            await asyncio.sleep(pause)
