"""A lock that allows one supervisor per project; it is released when its holder dies."""

import fcntl
import os
from typing import TextIO

from escala.errors import AlreadyRunning
from escala.project.project import Project


class Lock:
    def __init__(self, project: Project) -> None:
        self._project = project
        self._file: TextIO | None = None

    def take(self) -> None:
        """Take the lock, or raise AlreadyRunning with the holder's pid."""
        path = self._project.layout.lock
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115, PTH123 - held open while the lock is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            text = file.read().strip()
            file.close()
            raise AlreadyRunning(self._project.name, int(text) if text.isdigit() else None) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
