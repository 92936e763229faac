"""Pauses between restarts: doubled each time up to a cap, forgotten after a while of good service."""

import time
from collections.abc import Callable

FIRST = 0.1
CAP = 30.0
GOOD_SERVICE = 10.0
"""Seconds of being ready after which the next death is a first one again."""


class Backoff:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause = FIRST
        self._ready_since: float | None = None

    def ready(self) -> None:
        self._ready_since = self._clock()

    def next(self) -> float:
        """Return the seconds to wait after a death now."""
        if self._ready_since is not None and self._clock() - self._ready_since >= GOOD_SERVICE:
            self._pause = FIRST
        self._ready_since = None
        pause = self._pause
        self._pause = min(CAP, self._pause * 2)
        return pause
