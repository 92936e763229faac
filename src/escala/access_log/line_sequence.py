"""Counts lost lines by the numbers that HAProxy gives them, including those lost while no collector was running."""

import contextlib
import json
import os
from pathlib import Path

_MOST_WORKERS = 64
"""The maximum number of workers that are remembered: the current one, and old ones that finish their requests."""


class LineSequence:
    """The last number seen from each HAProxy worker. It is stored in `file`, so that it survives a restart.

    A worker is identified by the time at which it read its configuration, in microseconds since 1970. It is different
    for every start and reload.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._descriptor: int | None = None
        self._size = 0
        self._last: dict[int, int] = {}
        # If there is no file, or a full disk cut it off, losses are counted from now on.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._last = {int(worker): int(number) for worker, number in json.loads(file.read_bytes()).items()}

    def missed(self, worker: int, number: int) -> int:
        """Return how many of a worker's lines are missing before this one.

        Return -1 if this line is late, because HAProxy's threads overtook each other. It was counted as missing before.
        """
        before = self._last.get(worker)
        if before is None:
            self._last[worker] = number
            if len(self._last) > _MOST_WORKERS:
                del self._last[min(self._last)]
            return 0
        self._last[worker] = max(before, number)
        return number - before - 1 if number > before else -1

    def save(self) -> None:
        """Store the numbers; raise OSError if they cannot be written."""
        # The file is overwritten in place. This runs hundreds of times a second, and truncating is work for the disk.
        if self._descriptor is None:
            self._descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600)
            self._size = os.fstat(self._descriptor).st_size
        content = json.dumps(self._last).encode().ljust(self._size)
        os.pwrite(self._descriptor, content, 0)
        self._size = len(content)
