"""The output of the processes: each has a file under .escala/log; on the console, lines get a coloured prefix."""

import contextlib
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import cycle
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

from escala.processes.process import Output

_FILE_BYTES = 10 * 1024**2
_FILES_KEPT = 2
_WAITING = 2000
"""The maximum number of pieces of output that wait for the terminal. A piece has all lines that arrived together."""
_COLOURS = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")


class Console:
    """The terminal, or whatever stdout is. A terminal that is closed, slow or paused blocks nothing else.

    A thread writes the lines. If it cannot keep up, lines are left out and their number is printed.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._lines: queue.Queue[str] = queue.Queue(_WAITING)
        self._left_out = 0
        self._writer = threading.Thread(target=self._write_out, name="console", daemon=True)
        self._writer.start()
        self._colour = self._stream.isatty()
        self._colours = cycle(_COLOURS)
        self._prefixes: dict[str, str] = {}
        self._width = 8

    def write(self, name: str, lines: Sequence[str]) -> None:
        prefix = self._prefix(name)
        text = "".join([f"{prefix} {line}\n" for line in lines])
        if self._left_out:
            text = f"{self._left_out} lines were left out, because the terminal was too slow\n{text}"
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._left_out += len(lines)
        else:
            self._left_out = 0

    def flush(self, seconds: float = 1.0) -> None:
        """Wait until everything is written, for at most `seconds`."""
        end = time.monotonic() + seconds
        while self._lines.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.005)

    def _write_out(self) -> None:
        while True:
            text = self._lines.get()
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(text)
                self._stream.flush()
            self._lines.task_done()

    def _prefix(self, name: str) -> str:
        if len(name) > self._width:
            self._width = len(name)
            self._prefixes.clear()
        if name not in self._prefixes:
            padded = f"{name:<{self._width}} │"
            self._prefixes[name] = f"\x1b[{next(self._colours)}m{padded}\x1b[0m" if self._colour else padded
        return self._prefixes[name]


class _File(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Raise the error again. Otherwise, logging would print a traceback for each line."""
        raise


class Logs:
    """Writes the output of each process to its file and, if wanted, to the console."""

    def __init__(self, folder: Path, console: Console, echo: bool) -> None:
        self._folder = folder
        self._console = console
        self._echo = echo
        self._files: dict[str, _File] = {}
        self.failing: dict[str, str] = {}
        """Logs that cannot be written at the moment, and why. A full disk must not stop the service."""

    def sink(self, name: str, shown: Callable[[str], bool]) -> Output:
        """Return a function that takes the lines of process `name`.

        It writes all lines to the process's file, and those for which `shown` is true to the console too.
        """

        def take(lines: Sequence[str]) -> None:
            self.write(name, *lines)
            if self._echo:
                self._console.write(name, [line for line in lines if shown(line)])

        return take

    def write(self, name: str, *lines: str) -> None:
        if not lines:
            return
        stamp = datetime.now().astimezone().isoformat(timespec="milliseconds")
        file = self._files.get(name) or self._open(name)
        try:
            file.emit(logging.makeLogRecord({"msg": "\n".join([f"{stamp} {line}" for line in lines])}))
        except (OSError, ValueError) as error:
            if name not in self.failing:
                self._console.write("escala", [f"{file.baseFilename} cannot be written ({error}); its lines are lost"])
            self.failing[name] = str(getattr(error, "strerror", None) or error)
        else:
            self.failing.pop(name, None)

    def note(self, line: str) -> None:
        """Write a line of the supervisor itself to its log, without printing it."""
        self.write("escala", line)

    def say(self, line: str) -> None:
        """Print a line of the supervisor itself, and write it to its log."""
        self.write("escala", line)
        self._console.write("escala", [line])

    def flush(self) -> None:
        """Wait briefly until pending console output is written, so that other code can print after it."""
        self._console.flush()

    def close(self) -> None:
        self.flush()
        for file in self._files.values():
            file.close()

    def _open(self, name: str) -> _File:
        path = self._folder / f"{name.replace('/', '-')}.log"
        file = _File(path, maxBytes=_FILE_BYTES, backupCount=_FILES_KEPT, encoding="utf-8", delay=True)
        self._files[name] = file
        return file
