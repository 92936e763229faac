"""Runs a short command and captures its output."""

import asyncio
from dataclasses import replace

from escala.errors import ProcessFailed
from escala.processes.process import Process, ProcessSpec, describe_exit


async def output_of(spec: ProcessSpec, *words: str, seconds: float) -> list[str]:
    """Run a command with the additional arguments `words`, and return the lines that it prints.

    Raises ProcessFailed if it takes longer than `seconds` or fails, and OSError if it cannot be started.
    """
    lines: list[str] = []
    process = await Process.start(replace(spec, argv=(*spec.argv, *words)), lines.extend)
    try:
        async with asyncio.timeout(seconds):
            code = await process.wait()
    except TimeoutError:
        raise ProcessFailed(spec.name, f"took more than {seconds:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code:
        raise ProcessFailed(spec.name, " / ".join([describe_exit(code), *lines[-1:]]))
    return lines
