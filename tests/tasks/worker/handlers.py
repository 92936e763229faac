"""The tasks of the worker's tests. Processes that run one job at a time load this module, too."""

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path

from escala.tasks import File, JobContext, Output, Snooze, progress, task

released = threading.Event()
begun: list[int] = []


class Panic(BaseException):
    """Like that of a Rust extension."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@task
async def double(number: int) -> int:
    return 2 * number


@task
def in_a_thread() -> str:
    return threading.current_thread().name


@task(process=True)
def in_a_process() -> int:
    progress(0.5, "in a process")
    return os.getpid()


@task
def filed() -> Output:
    return Output({"rows": 1}, (File("a.txt", "text/plain", b"content"),))


@task(retries=1, backoff="10ms")
async def failing() -> None:
    raise ValueError("no\0way")


@task(retries={ConnectionError: 2, ValueError: 0}, backoff="10ms")
async def choosy(kind: str) -> None:
    raise {"reset": ConnectionResetError, "value": ValueError, "key": KeyError}[kind]("x")


@task(retries=0, timeout="100ms")
async def slow() -> None:
    await asyncio.sleep(30)


@task(retries=0, timeout="100ms")
async def deaf() -> None:
    """Do not end when cancelled."""
    while not released.is_set():
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            continue


@task(retries=0, timeout="300ms")
def stuck() -> None:
    released.wait(30)


@task(retries=0, timeout="300ms", process=True)
def stuck_process() -> None:
    time.sleep(60)


@task(retries=0)
async def raises(kind: str) -> None:
    if kind == "exit":
        sys.exit(3)
    if kind == "cancel":
        raise asyncio.CancelledError
    raise {
        "panic": Panic("oh"),
        "interrupt": KeyboardInterrupt(),
        "generator": GeneratorExit(),
        "group": BaseExceptionGroup("many", [Panic("one"), ValueError("two")]),
        "timeout": TimeoutError("partner slow"),
        "unprintable": Unprintable(),
        "long": ValueError("x" * 100_000),
        "surrogate": ValueError("cannot read caf\udce9.txt"),
    }[kind]


@task(retries=0)
def raises_in_a_thread(kind: str) -> None:
    if kind == "exit":
        sys.exit(3)
    raise {"panic": Panic("oh"), "interrupt": KeyboardInterrupt(), "generator": GeneratorExit()}[kind]


@task(retries=0)
async def ends_the_loop(how: str) -> str:
    """Harm the event loop in a task or a callback of one's own."""
    loop = asyncio.get_running_loop()

    async def leave() -> None:
        sys.exit(3)

    def interrupt() -> None:
        raise KeyboardInterrupt

    if how == "task":
        asyncio.create_task(leave()).add_done_callback(lambda done: done.exception())
    elif how == "callback":
        loop.call_soon(interrupt)
    else:
        loop.stop()
    await asyncio.sleep(0.1)
    return "went on"


@task(retries=0)
async def unstorable(kind: str) -> object:
    if kind == "files":
        return Output(1, (File("a", "text/plain", b""), File("a", "text/plain", b"")))
    return {"object": object(), "nan": {"x": [1.0, float("nan")]}, "nul": "a\0b", "big": {"n": 10**40}}[kind]


@task(retries=0)
async def reports(job: JobContext) -> None:
    job.progress(0.5, "reading caf\udce9.txt")
    while not job.cancelled:
        await asyncio.sleep(0.01)


@task(retries=0)
async def sees(job: JobContext, number: int) -> dict[str, object]:
    job.log.info("seen")
    return {"id": job.id, "task": job.task, "attempt": job.attempt, "number": number}


@task(retries=0)
async def snoozes(job: JobContext) -> int:
    if job.attempt == 1:
        raise Snooze("10ms")
    return job.attempt


@task
async def blocking() -> str:
    """Block the handlers' loop, as no handler should: leases must be renewed all the same."""
    progress(0.25, "blocking")
    time.sleep(4)
    return "done"


@task(retries=0, timeout="200ms")
async def blocking_for_ever() -> None:
    released.wait(30)


@task
def waiting() -> str:
    progress(0.5, "waiting")
    released.wait(30)
    return "released"


@task
async def waiting_on_the_loop(folder: str) -> str:
    """Wait for a file in a folder."""
    while not await asyncio.to_thread(Path(folder, "go").exists):
        await asyncio.sleep(0.02)
    return "released"


@task(retries=0)
def ends_its_process(how: str = "exit") -> None:
    """End the process. Only processes that run one job at a time may be ended so in these tests."""
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


@task(retries=0, process=True)
def ends_its_own_process(how: str = "exit") -> None:
    ends_its_process.function(how)


@task(retries=0, concurrency=2)
async def two_at_a_time(number: int) -> int:
    """Return how many run at this moment."""
    begun.append(number)
    running = len(begun)
    await asyncio.sleep(0.02)
    begun.remove(number)
    return running


@task(retries=0, rate="5/1s")
async def five_a_second(number: int) -> float:
    return time.monotonic()


@task(cron="0 0 1 1 *")
async def at_new_year() -> str:
    return "happy"
