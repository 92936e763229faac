"""Runs attempts in processes of their own, one at a time in each: those of ``process=True``, and suspects.

A process that dies takes only its own attempt along, so there is no doubt which job ended it.
"""

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from escala.errors import ProcessFailed
from escala.tasks.worker.attempt import Attempt, Outcome, interrupted
from escala.tasks.worker.handlers import wire

log = logging.getLogger("escala.worker")

_READY_SECONDS = 60.0
_END_SECONDS = 0.5
"""How long a process has to end when its socket is closed."""
_IDLE_SECONDS = 30.0
"""An idle process ends after this time."""


@dataclass
class _Process:
    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    attempt: Attempt | None = None
    idle_since: float = field(default_factory=time.monotonic)

    async def end(self) -> int:
        """Let it end, or kill it if it does not, and return its exit code."""
        self.writer.close()
        try:
            async with asyncio.timeout(_END_SECONDS):
                return await self.process.wait()
        except TimeoutError:
            pass
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        return await self.process.wait()


class HandlerPool:
    """At most `size` processes, started when they are needed. `module` is what they load, `folder` its place."""

    def __init__(
        self, module: str, folder: str, size: int, done: Callable[[Sequence[tuple[Attempt, Outcome]]], None]
    ) -> None:
        self._command = (sys.executable, "-P", "-m", "escala.tasks.worker.handlers.process", module, folder)
        self._done = done
        self._free = asyncio.Semaphore(size)
        self._size = size
        self._starting = asyncio.Lock()
        """One at a time: no process inherits the socket of another, whose end would then go unnoticed."""
        self._idle: list[_Process] = []
        self._busy: dict[Attempt, _Process] = {}
        self._runs: dict[Attempt, asyncio.Task[None]] = {}

    @property
    def room(self) -> int:
        """How many attempts could begin at once."""
        return max(0, self._size - len(self._runs))

    def start(self, attempts: Sequence[Attempt]) -> None:
        """Begin attempts, each as soon as a process is free for it."""
        for attempt in attempts:
            run = self._runs[attempt] = asyncio.create_task(self._run(attempt), name=f"process for {attempt}")
            run.add_done_callback(lambda _, attempt=attempt: self._runs.pop(attempt, None))  # type: ignore[misc]

    def interrupt(self, attempt: Attempt) -> None:
        """Tell a handler to stop. `attempt.interrupted` says why."""
        process = self._busy.get(attempt)
        if attempt.interrupted in ("timeout", "lost"):
            self.end(attempt)
        elif process is not None and attempt.interrupted is not None:
            wire.send(process.writer, wire.Interrupt(attempt.interrupted))

    def end(self, attempt: Attempt) -> None:
        """End the process of an attempt, or do not begin it."""
        process = self._busy.get(attempt)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.process.kill()
        elif (run := self._runs.get(attempt)) is not None:
            run.cancel()

    async def end_idle(self) -> None:
        """End processes that have been idle for a while."""
        long_ago = time.monotonic() - _IDLE_SECONDS
        old = [each for each in self._idle if each.idle_since < long_ago]
        self._idle = [each for each in self._idle if each.idle_since >= long_ago]
        for each in old:
            await each.end()

    async def close(self) -> None:
        runs = list(self._runs.values())
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        idle, self._idle = self._idle, []
        await asyncio.gather(*(each.end() for each in idle), return_exceptions=True)

    async def _run(self, attempt: Attempt) -> None:
        outcome = None
        try:
            async with self._free:
                outcome = await self._outcome(attempt)
        except asyncio.CancelledError:
            if attempt.interrupted is None:
                raise
            outcome = interrupted(attempt)
        except (OSError, ProcessFailed) as error:
            log.warning("%s: %s", attempt, error)
            outcome = Outcome("again", error=str(error), pause=5.0)
        self._done([(attempt, outcome)])

    async def _outcome(self, attempt: Attempt) -> Outcome:
        process = self._take_idle() or await self._begin()
        self._busy[attempt] = process
        code = None
        try:
            attempt.began = time.monotonic()
            wire.send(process.writer, wire.Run(attempt.job, attempt.owner))
            while True:
                message = await wire.read_report(process.reader)
                if isinstance(message, wire.Progress):
                    attempt.context.reported = (message.fraction, message.message)
                elif isinstance(message, wire.Ended):
                    process.idle_since = time.monotonic()
                    self._idle.append(process)
                    return message.outcome
        except (asyncio.IncompleteReadError, ConnectionError):
            code = await process.end()
            if attempt.interrupted is not None:
                return interrupted(attempt)
            return Outcome("crashed", error=f"its process ended during attempt {attempt.job.attempt} ({_how(code)})")
        except asyncio.CancelledError:
            await process.end()
            raise
        finally:
            del self._busy[attempt]

    def _take_idle(self) -> _Process | None:
        while self._idle:
            process = self._idle.pop()
            if process.process.returncode is None:
                return process
            process.writer.close()
        return None

    async def _begin(self) -> _Process:
        """Start a process, and wait until it has loaded the tasks. Raises ProcessFailed if it cannot."""
        async with self._starting:
            ours, theirs = socket.socketpair()
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *self._command, str(theirs.fileno()), pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL
                )
        reader, writer = await asyncio.open_connection(sock=ours)
        started = _Process(process, reader, writer)
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await wire.read_report(reader)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            code = await started.end()
            raise ProcessFailed("a process for jobs", f"it ended before it was ready ({_how(code)})") from None
        except asyncio.CancelledError:
            await started.end()
            raise
        return started


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
