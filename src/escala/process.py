"""One operating-system process: what to run, its output line by line, and how it ends."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

LONGEST_LINE = 16 * 1024
"""Bytes after which a line without an end is passed on as it is."""

_TAIL_LINES = 30
_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """A command, complete: the same value starts the process again after it died."""

    name: str
    argv: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = 10.0
    """Seconds between the stop signal and SIGKILL."""
    death_signal: signal.Signals = signal.SIGKILL
    """What the process gets from the kernel when the supervisor is gone (Linux)."""


class Process:
    """A running process, leader of a process group of its own."""

    def __init__(self, spec: ProcessSpec, process: asyncio.subprocess.Process, output: Callable[[str], None]) -> None:
        self.spec = spec
        self.pid = process.pid
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._process = process
        self._output = output
        self._pump = asyncio.create_task(self._read(), name=f"output of {spec.name}")

    @classmethod
    async def start(cls, spec: ProcessSpec, output: Callable[[str], None]) -> "Process":
        """Start `spec`; each line that it prints goes to `output` without its end of line."""

        def die_with_supervisor() -> None:
            if _libc is not None:
                _libc.prctl(_PR_SET_PDEATHSIG, spec.death_signal)

        process = await asyncio.create_subprocess_exec(
            *spec.argv,
            cwd=spec.cwd,
            env=dict(spec.environment),
            user=spec.user,
            group=spec.user,
            extra_groups=[] if spec.user else None,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_supervisor,
        )
        return cls(spec, process, output)

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End the process, and all it started, at once."""
        if self.returncode is None:
            self._kill_group()

    async def wait(self) -> int:
        """Wait for the process to end, and for its last words; return its exit code, negative for a signal."""
        code = await self._process.wait()
        self._kill_group()
        await self._pump
        return code

    async def stop(self) -> int:
        """Ask the process to stop, kill it when its time is up, and return its exit code."""
        self.signal(self.spec.stop_signal)
        try:
            await asyncio.wait_for(asyncio.shield(self._process.wait()), self.spec.stop_timeout)
        except TimeoutError:
            self._kill_group()
        return await self.wait()

    def _kill_group(self) -> None:
        """Kill what the process left behind in its group, and so close the pipe to its output."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def _read(self) -> None:
        reader = self._process.stdout
        assert reader is not None
        rest = b""
        while chunk := await reader.read(64 * 1024):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._emit(line)
            while len(rest) > LONGEST_LINE:
                self._emit(rest[:LONGEST_LINE])
                rest = rest[LONGEST_LINE:]
        if rest:
            self._emit(rest)

    def _emit(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        self.tail.append(text)
        self._output(text)


def describe_exit(code: int) -> str:
    """Word an exit code as asyncio gives it: "exit code 1", "killed by SIGKILL"."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def is_same_process(pid: int, started: float) -> bool:
    """Whether `pid` is still the process that started at `started` (seconds since the epoch)."""
    try:
        return abs(psutil.Process(pid).create_time() - started) < 0.05
    except psutil.Error:
        return False
