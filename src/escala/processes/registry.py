"""A file that lists the processes a supervisor has started.

If the supervisor dies, the next one reads the file and ends the processes that are left.
"""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from escala.processes.process import Process, has_ended, is_same_process
from escala.processes.records import Records
from escala.project.atomic_write import write_atomically

_STOP_SECONDS = 15.0
_KILL_SECONDS = 5.0


class Entry(msgspec.Struct):
    name: str
    pid: int
    started: float
    stop_signal: int


@dataclass(frozen=True)
class Leftover:
    name: str
    pid: int


class Registry:
    def __init__(self, path: Path, records: Records) -> None:
        self._path = path
        self._records = records
        self._entries: dict[int, Entry] = {}

    def add(self, process: Process) -> None:
        with contextlib.suppress(psutil.Error):  # gone already
            started = psutil.Process(process.pid).create_time()
            entry = Entry(process.spec.name, process.pid, started, process.spec.stop_signal)
            self._entries[process.pid] = entry
            self._write()

    def remove(self, process: Process) -> None:
        if self._entries.pop(process.pid, None):
            self._write()

    def retry(self) -> None:
        """Write the file again if the last attempt failed."""
        if self._path.name in self._records.failing:
            self._write()

    def stop_leftovers(self) -> list[Leftover]:
        """End the processes that an earlier supervisor left running, and return them. Blocking.

        They get their stop signal first, and are killed if that is not enough.
        """
        found = [
            (entry, psutil.Process(entry.pid)) for entry in self._read() if is_same_process(entry.pid, entry.started)
        ]
        for entry, process in found:
            with contextlib.suppress(psutil.Error):
                process.send_signal(entry.stop_signal)
        _, alive = psutil.wait_procs([process for _, process in found], timeout=_STOP_SECONDS)
        _kill(alive)
        stopped = [Leftover(entry.name, entry.pid) for entry, _ in found]
        for entry in self._read():  # their own children, which may outlive them
            rest = _rest_of_group(entry)
            _kill(rest)
            stopped += [Leftover(entry.name, process.pid) for process in rest]
        return stopped

    def save(self) -> None:
        """Write the list, which is empty at the start."""
        self._write()

    def _read(self) -> list[Entry]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[Entry])
        except (OSError, msgspec.MsgspecError):
            return []

    def _write(self) -> None:
        with self._records.attempt(self._path.name):
            content = msgspec.json.encode(list(self._entries.values())).decode()
            write_atomically(self._path, content, durable=False)  # not durable: a power failure ends the processes too


def _kill(processes: list[psutil.Process]) -> None:
    """Kill the processes, and wait until they have ended: a signal takes effect some time after it was sent."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    deadline = time.monotonic() + _KILL_SECONDS
    while time.monotonic() < deadline and not all(has_ended(process.pid) for process in processes):
        time.sleep(0.01)


def _rest_of_group(entry: Entry) -> list[psutil.Process]:
    """Return the processes in the group that `entry` led.

    While a group has members, the kernel gives its id to no new process. If a process with the leader's id has another
    start time, the group is gone and the id has been reused.
    """
    if not has_ended(entry.pid) and not is_same_process(entry.pid, entry.started):
        return []
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getpgid(process.pid) == entry.pid and not has_ended(process.pid):
                members.append(process)
    return members
