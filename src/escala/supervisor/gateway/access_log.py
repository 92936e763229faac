"""The access log's collector as a child of the supervisor, and the pipe that carries the lines to it."""

import asyncio
import contextlib
import fcntl
import os
import sys
from pathlib import Path

from escala.environment import Environment
from escala.processes.lifecycle import Lifecycle
from escala.processes.process import ProcessSpec
from escala.project.project import Project
from escala.supervisor.replicas.spec import program_path

COLLECTOR = "access-log"
_MAX_PIPE = Path("/proc/sys/fs/pipe-max-size")
"""The maximum capacity of a pipe without privileges (pipe(7))."""


class LogPipe:
    """The pipe. The supervisor holds both ends, so lines stay in it while HAProxy or the collector restarts."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        with contextlib.suppress(OSError, ValueError):  # the kernel limits the total pipe size of a user
            fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, int(_MAX_PIPE.read_text()))

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


class CollectorLifecycle(Lifecycle):
    start_timeout = 20.0

    def __init__(self, project: Project, pipe: LogPipe, valkey: str) -> None:
        self._project = project
        self._environment = Environment(project=project.name, valkey=valkey)
        self._pipe = pipe
        self._metrics = project.layout.run / "metrics.sock"

    async def prepare(self) -> ProcessSpec:
        settings = self._project.config.gateway.access_log
        options = {
            "--lines": self._pipe.reader,
            "--metrics": self._metrics,
            "--folder": self._project.layout.access_log,
            "--segment": settings.segment,
            "--age": settings.age,
            "--total": settings.total,
        }
        words = [str(word) for pair in options.items() for word in pair]
        return ProcessSpec(
            name=COLLECTOR,
            argv=(sys.executable, "-P", "-m", "escala.access_log.collector", *words),
            cwd=self._project.layout.run,
            environment={"PATH": program_path(), "PYTHONUNBUFFERED": "1", **self._environment.variables()},
            descriptors=(self._pipe.reader,),
        )

    async def probe(self) -> None:
        _, writer = await asyncio.open_unix_connection(self._metrics)
        writer.close()
