"""Pauses between restarts. Each pause is twice as long as the one before, up to a cap.

Five crashes within a minute are a crash loop. A process that stays ready for a while ends the crash loop, and its next
pause is the shortest again.
"""

import time
from collections import deque
from collections.abc import Callable

FIRST = 0.1
CAP = 30.0
GOOD_SERVICE = 10.0
"""Seconds that a process must be ready for its earlier crashes to be forgotten."""

CRASHES = 5
CRASH_WINDOW = 60.0


class Backoff:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause = FIRST
        self._ready_since: float | None = None
        self._deaths: deque[float] = deque(maxlen=CRASHES)
        self._looping = False

    @property
    def crashing(self) -> bool:
        """Whether the process is in a crash loop."""
        return self._looping and not self._serves_well()

    def ready(self) -> None:
        self._ready_since = self._clock()

    def next(self) -> float:
        """Record a crash, and return the seconds to wait before the restart."""
        if self._serves_well():
            self._pause = FIRST
            self._looping = False
            self._deaths.clear()
        self._ready_since = None
        now = self._clock()
        self._deaths.append(now)
        if len(self._deaths) == CRASHES and now - self._deaths[0] <= CRASH_WINDOW:
            self._looping = True
        pause = self._pause
        self._pause = min(CAP, self._pause * 2)
        return pause

    def _serves_well(self) -> bool:
        return self._ready_since is not None and self._clock() - self._ready_since >= GOOD_SERVICE
