"""How many jobs per second end in this process, over about the last second."""

import time

_SPAN = 0.1


class Rate:
    def __init__(self) -> None:
        self.per_second = 0.0
        self._since = time.monotonic()
        self._ended = 0

    def count(self, ended: int) -> None:
        self._ended += ended
        now = time.monotonic()
        passed = now - self._since
        if passed >= _SPAN:
            self.per_second += min(1.0, 2 * passed) * (self._ended / passed - self.per_second)
            self._since, self._ended = now, 0
