"""The access log's collector as a child of the supervisor, and the pipe by which lines reach it."""

import asyncio
import contextlib
import fcntl
import os
import sys
from pathlib import Path

from escala.processes.child import Duties, nothing
from escala.processes.process import ProcessSpec
from escala.project.project import Project
from escala.supervisor.replicas.spec import program_path

COLLECTOR = "access-log"
_START_SECONDS = 20.0


_MOST_BYTES = Path("/proc/sys/fs/pipe-max-size")
"""What a pipe may hold without privileges (pipe(7))."""


class Lines:
    """The pipe. The supervisor holds both ends, so lines wait in it while HAProxy or the collector is started again."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        with contextlib.suppress(OSError, ValueError):  # a user with many pipes gets no large ones
            fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, int(_MOST_BYTES.read_text()))

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


def collector_duties(project: Project, lines: Lines) -> Duties:
    layout, settings = project.layout, project.config.gateway.access_log
    options = {
        "--lines": lines.reader,
        "--metrics": layout.run / "metrics.sock",
        "--folder": layout.access_log,
        "--segment": settings.segment,
        "--age": settings.age,
        "--total": settings.total,
    }
    spec = ProcessSpec(
        name=COLLECTOR,
        argv=(
            sys.executable,
            "-P",
            "-m",
            "escala.access_log.collector",
            *(str(word) for pair in options.items() for word in pair),
        ),
        cwd=layout.run,
        environment={"PATH": program_path(), "PYTHONUNBUFFERED": "1"},
        descriptors=(lines.reader,),
    )

    async def prepare() -> ProcessSpec:
        return spec

    async def probe() -> None:
        _, writer = await asyncio.open_unix_connection(layout.run / "metrics.sock")
        writer.close()

    return Duties(prepare=prepare, probe=probe, start_timeout=_START_SECONDS, on_ready=nothing, on_end=nothing)
