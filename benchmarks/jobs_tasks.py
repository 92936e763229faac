"""The tasks of `benchmarks.jobs`."""

import os
import time
from pathlib import Path

from benchmarks import jobs_peer_workers as workers
from escala import task


@task(queue="bench")
async def noop(number: int) -> int:
    return number


@task(queue="bench")
async def lag(sent: float) -> None:
    late = time.time() - sent
    with Path(os.environ[workers.LATENCIES], str(os.getpid())).open("a") as file:
        file.write(f"{late}\n")
