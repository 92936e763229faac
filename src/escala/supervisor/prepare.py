"""The project's own preparation: one command, after the engines and before the replicas."""

import asyncio
import shlex
from collections.abc import Mapping
from pathlib import Path

from escala.errors import PrepareFailed


async def run(command: str, root: Path, environment: Mapping[str, str]) -> None:
    """Run `command` in the user's terminal, so that its progress is seen; PrepareFailed where it does not end well."""
    try:
        process = await asyncio.create_subprocess_exec(*shlex.split(command), cwd=root, env=environment)
    except (OSError, ValueError) as error:
        raise PrepareFailed(command, f"cannot be run: {error}") from None
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if code != 0:
        raise PrepareFailed(command, f"ended with exit code {code}")
