"""How many lines were lost on the way, as HAProxy numbers them, also while no collector was there to take them."""

import contextlib
import json
import os
from pathlib import Path

_MOST_WORKERS = 64
"""Workers that are remembered: the present one, and old ones that finish their requests."""


class LineSequence:
    """The last number seen of each of HAProxy's workers, kept in `file` over restarts of the collector.

    A worker is known by when its configuration was read: microseconds since 1970, its own at every start and reload.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._descriptor: int | None = None
        self._size = 0
        self._last: dict[int, int] = {}
        # None was kept, or it was cut off by a full disk: losses are counted from now on.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._last = {int(worker): int(number) for worker, number in json.loads(file.read_bytes()).items()}

    def missed(self, worker: int, number: int) -> int:
        """Return how many of a worker's lines are missing before this one; -1 where threads overtook each other."""
        before = self._last.get(worker)
        if before is None:
            self._last[worker] = number
            if len(self._last) > _MOST_WORKERS:
                del self._last[min(self._last)]
            return 0
        self._last[worker] = max(before, number)
        return number - before - 1 if number > before else -1

    def save(self) -> None:
        """Keep the numbers; raise OSError where the disk does not take them."""
        # In place, as this is done hundreds of times a second: to truncate a file is work for the disk.
        if self._descriptor is None:
            self._descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600)
            self._size = os.fstat(self._descriptor).st_size
        content = json.dumps(self._last).encode().ljust(self._size)
        os.pwrite(self._descriptor, content, 0)
        self._size = len(content)
