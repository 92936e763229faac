"""The access log's collector as a child of the supervisor."""

import asyncio
import sys

from escala.process import ProcessSpec
from escala.project import Project
from escala.supervisor.child import Duties, nothing
from escala.supervisor.replica import program_path

COLLECTOR = "access-log"
_START_SECONDS = 20.0


def collector_duties(project: Project) -> Duties:
    layout, settings = project.layout, project.config.gateway.access_log
    options = {
        "--socket": layout.run / "access.sock",
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
            "-m",
            "escala.access_log.collector",
            *(str(word) for pair in options.items() for word in pair),
        ),
        cwd=layout.run,
        environment={"PATH": program_path(), "PYTHONUNBUFFERED": "1"},
    )

    async def prepare() -> ProcessSpec:
        return spec

    async def probe() -> None:
        _, writer = await asyncio.open_unix_connection(layout.run / "access.sock")
        writer.close()

    return Duties(prepare=prepare, probe=probe, start_timeout=_START_SECONDS, on_ready=nothing, on_end=nothing)
