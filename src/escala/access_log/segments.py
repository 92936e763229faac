"""The files of the access log. One is being written. Older ones are kept until the total size is too large."""

import time
from collections.abc import Callable
from io import BufferedWriter
from pathlib import Path

SUFFIX = ".ndjson"


class Segments:
    """Appends to `folder`/TIME.ndjson. Begins a new file when one is large or old enough, and removes the oldest."""

    def __init__(
        self, folder: Path, *, segment: int, age: float, total: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._segment = segment
        self._age = age
        self._total = total
        self._clock = clock
        self._file: BufferedWriter | None = None
        self._began = 0.0
        self._size = 0
        self._count = 0

    def append(self, content: bytes) -> None:
        """Write whole lines; raise OSError if they cannot be written."""
        if self._file is None or self._size >= self._segment or self._clock() - self._began >= self._age:
            self._begin()
        assert self._file is not None
        self._file.write(content)
        self._file.flush()
        self._size += len(content)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self.close()
        self._began = self._clock()
        self._count += 1  # keeps the order of two files that begin at the same time
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self._began))
        path = self._folder / f"{stamp}-{int(self._began % 1 * 10**6):06d}-{self._count:06d}{SUFFIX}"
        path.touch(mode=0o600)
        self._file = path.open("ab")
        self._size = 0
        self._make_room(path)

    def _make_room(self, present: Path) -> None:
        files = segments(self._folder)
        left = self._total - self._segment  # reserved for the current file, which may grow to that size
        for file in reversed(files):
            if file == present:
                continue
            left -= file.stat().st_size
            if left < 0:
                file.unlink(missing_ok=True)


def segments(folder: Path) -> list[Path]:
    """Return the files, the oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"))
