"""Tasks that note each of their starts and ends in a file of their process, for tests that kill workers."""

import asyncio
import os
import random
import sys
import time
from pathlib import Path

from escala.tasks import JobContext, task


def note(what: str, job: JobContext) -> None:
    line = f"{what} {job.id} {job.attempt} {os.getpid()}\n"
    file = os.open(Path(os.environ["JOURNAL"], str(os.getpid())), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)


@task
async def work(job: JobContext, number: int) -> int:
    note("start", job)
    await asyncio.sleep(random.uniform(0, 0.3))
    note("end", job)
    return number


@task
def work_in_a_thread(job: JobContext, number: int) -> int:
    note("start", job)
    time.sleep(random.uniform(0, 0.3))
    note("end", job)
    return number


@task(retries=1, backoff="50ms", timeout="500ms")
async def toxic(job: JobContext, kind: str) -> None:
    """Exit, raise, or take too long."""
    note("start", job)
    if kind == "exit":
        os._exit(1)
    if kind == "leave":
        sys.exit(1)
    if kind == "raise":
        raise RuntimeError("toxic")
    await asyncio.sleep(60)


@task
async def until_told(job: JobContext, file: str) -> int:
    """Wait for a file."""
    note("start", job)
    while not Path(file).exists():
        await asyncio.sleep(0.02)
    note("end", job)
    return job.attempt
