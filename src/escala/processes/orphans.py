"""Finds, kills and reaps processes that replicas started and did not end.

The supervisor is the subreaper of everything below it (prctl(2), PR_SET_CHILD_SUBREAPER). A process that loses its
parent becomes the supervisor's child, even if it has created its own session or group. Its environment names the
replica that it comes from. This works on Linux only. Elsewhere, only the replica's own process group ends with it.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil

from escala.background import BackgroundLoop
from escala.environment import VARIABLES
from escala.events import Emit, LeftBehind
from escala.processes.process import RUNNING

LOOK_EVERY = 1.0
_KILL_SECONDS = 0.2
_PR_SET_CHILD_SUBREAPER = 36
_MARK = f"{VARIABLES['replica']}=".encode()


class Orphans:
    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._dead: set[int] = set()
        """Zombies that the last check found. The next check reaps those that are still there."""
        self.loop = BackgroundLoop("reaper of orphans", self._look)

    def adopt(self) -> None:
        """Become the parent of every descendant that loses its own parent."""
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def end_of(self, replica: str, pid: int) -> None:
        """Kill what a replica left behind. Its process `pid` has ended, and that process's group with it."""
        self._end(lambda each: _replica_of(each) == replica and _group_of(each) != pid)

    def end_all(self) -> None:
        """Kill everything that is left, because the project stops."""
        self._end(lambda each: True)
        self._reap(list(self._children()))

    async def _look(self) -> float:
        with contextlib.suppress(ChildProcessError):
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:  # noqa: ASYNC222 - no wait
                # Reap only those that were zombies at the last check too: other code in this process may be about to
                # wait for the newer ones.
                dead = {pid for pid in self._children() if _is_zombie(pid)}
                self._reap(dead & self._dead)
                self._dead = dead
        return LOOK_EVERY

    def _reap(self, pids: Iterable[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    def _end(self, belongs: Callable[[int], bool]) -> None:
        """Kill the processes for which `belongs` is true.

        Repeat until none is left: when one is killed, its own children become orphans, and may belong too.
        """
        ended: dict[int, str] = {}
        while chosen := [pid for pid in self._living() if pid not in ended and belongs(pid)]:
            for pid in chosen:
                ended[pid] = _replica_of(pid)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            end = time.monotonic() + _KILL_SECONDS
            while any(not _is_zombie(pid) for pid in chosen) and time.monotonic() < end:
                time.sleep(0.002)
        for name in sorted(set(ended.values())):
            self._emit(LeftBehind(name, tuple(pid for pid, of in ended.items() if of == name)))

    def _living(self) -> list[int]:
        return [pid for pid in self._children() if not _is_zombie(pid)]

    def _children(self) -> Iterator[int]:
        """Yield adopted children.

        Processes that were started here (`Process`), or that share this process's session, are not among them.
        """
        session = os.getsid(0)
        for pid in _children_of_this_process():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if pid not in RUNNING and os.getsid(pid) != session:
                    yield pid


def _children_of_this_process() -> list[int]:
    """Return the process ids of all children. Not every kernel has the file (proc_tid_children(5))."""
    files = list(Path("/proc/self/task").glob("*/children"))
    if not files:
        return [child.pid for child in psutil.Process().children()]
    found: list[int] = []
    for file in files:
        with contextlib.suppress(OSError, ValueError):  # the thread has ended
            found += map(int, file.read_text().split())
    return found


def _group_of(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        return os.getpgid(pid)
    return 0


def _replica_of(pid: int) -> str:
    """Return the name of the replica that a process comes from; "" if its environment does not name one."""
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if entry.startswith(_MARK):
                return entry.removeprefix(_MARK).decode(errors="replace")
    return ""


def _is_zombie(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z"
    return True
