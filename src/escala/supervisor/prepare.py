"""The project's own preparation: one command that runs after the engines have started and before the replicas do."""

import shlex
import time
from collections.abc import Mapping
from pathlib import Path

from escala.errors import PrepareFailed
from escala.events import Emit, Prepared, Preparing
from escala.processes.process import Process, ProcessSpec, describe_exit
from escala.processes.registry import Registry

STOP_SECONDS = 5.0


async def run(command: str, root: Path, environment: Mapping[str, str], registry: Registry, emit: Emit) -> None:
    """Run `command` in the user's terminal, so that its progress is visible; raise PrepareFailed if it fails."""
    emit(Preparing(command))
    began = time.monotonic()
    spec = ProcessSpec(
        name="prepare",
        argv=tuple(shlex.split(command)),
        cwd=root,
        environment=environment,
        stop_timeout=STOP_SECONDS,
        in_terminal=True,
    )
    try:
        process = await Process.start(spec, lambda lines: None)
    except OSError as error:
        raise PrepareFailed(command, f"cannot be started: {error.strerror}") from None
    registry.add(process)
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:  # a stop was requested in the meantime
            await process.stop()
        registry.remove(process)
    if code != 0:
        raise PrepareFailed(command, f"failed: {describe_exit(code)}")
    emit(Prepared(time.monotonic() - began))
