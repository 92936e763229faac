"""How many lines were lost on the way, as HAProxy numbers them, also while no collector was there to take them."""

import contextlib
import json
from pathlib import Path

import psutil

from escala.process import is_same_process


class Numbering:
    """The last number seen of each of HAProxy's worker processes, kept in `file` over restarts of the collector."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._workers: dict[int, str] = {}
        """By process number."""
        self._last: dict[str, int] = {}
        # None was kept, or it was cut off by a full disk: losses are counted from now on.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            kept = {str(worker): int(number) for worker, number in json.loads(file.read_bytes()).items()}
            self._last = {worker: number for worker, number in kept.items() if not _has_ended(worker)}

    def missed(self, pid: int, number: int) -> int:
        """Return how many of a process's lines are missing before this one; -1 where threads overtook each other."""
        worker = self._workers.get(pid)
        if worker is None:
            self._forget_ended()
            worker = self._workers[pid] = _worker_of(pid)
        before = self._last.get(worker)
        if before is None:
            self._last[worker] = number
            return 0
        self._last[worker] = max(before, number)
        return number - before - 1 if number > before else -1

    def _forget_ended(self) -> None:
        self._workers = {pid: worker for pid, worker in self._workers.items() if not _has_ended(worker)}
        self._last = {worker: number for worker, number in self._last.items() if not _has_ended(worker)}

    def save(self) -> None:
        """Keep the numbers; raise OSError where the disk does not take them."""
        self._file.write_text(json.dumps(self._last))


def _worker_of(pid: int) -> str:
    """Return what tells a process from all others, also from one that gets its number later."""
    try:
        return f"{pid}@{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return f"{pid}@0"


def _has_ended(worker: str) -> bool:
    pid, _, started = worker.partition("@")
    return not is_same_process(int(pid), float(started))
