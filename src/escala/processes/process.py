"""One operating-system process: what to run, its output line by line, and how it ends."""

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

LONGEST_LINE = 16 * 1024
"""The maximum length of a line in bytes. A longer line is split."""

_TAIL_LINES = 30
_KILL_SECONDS = 5.0
_LAST_WORDS_SECONDS = 1.0
"""How long output is read after the process has ended. A grandchild in another group may hold it open for ever."""

RUNNING: set[int] = set()
"""The ids of all processes that were started here and not yet waited for. No other code may wait for them."""

Output = Callable[[Sequence[str]], None]
"""Takes lines as they arrive, without their line ends. If many arrive together, it gets them in one call."""
_PR_SET_PDEATHSIG = 1  # prctl(2)
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """The complete description of a process. The same value can start it again after it has ended."""

    name: str
    argv: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = 10.0
    """Seconds between the stop signal and SIGKILL."""
    kill_signal: signal.Signals = signal.SIGKILL
    """The signal that ends the process at once. If it is not SIGKILL, SIGKILL follows after five seconds."""
    death_signal: signal.Signals = signal.SIGKILL
    """The signal that the kernel sends to the process when the supervisor has ended (Linux)."""
    descriptors: tuple[int, ...] = ()
    """File descriptors that it inherits under the same numbers."""
    open_files: int | None = None
    """How many file descriptors it may open (RLIMIT_NOFILE). None means as many as the supervisor."""
    processor: int | None = None
    """The processor that it is bound to (Linux)."""
    in_terminal: bool = False
    """Whether it writes directly to the supervisor's terminal. Otherwise, the supervisor reads its output by line."""


class Process:
    """A running process, leader of a process group of its own."""

    def __init__(
        self,
        spec: ProcessSpec,
        popen: "subprocess.Popen[bytes]",
        reader: asyncio.StreamReader,
        pipe: asyncio.ReadTransport | None,
        output: Output,
    ) -> None:
        self.spec = spec
        self.pid = popen.pid
        self.returncode: int | None = None
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._popen = popen
        self._pipe = pipe
        self._output = output
        self._ended = asyncio.create_task(self._reap(), name=f"end of {spec.name}")
        self._pump = asyncio.create_task(self._read(reader), name=f"output of {spec.name}")

    @classmethod
    async def start(cls, spec: ProcessSpec, output: Output) -> "Process":
        """Start `spec`; what it prints goes to `output`.

        Raises OSError if the program cannot be started, and ValueError if it wants more open files than are allowed.
        """
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if spec.open_files is not None and hard != resource.RLIM_INFINITY and spec.open_files > hard:
            raise ValueError(f"open_files={spec.open_files} exceeds the limit of {hard}; lower it or raise ulimit -Hn")

        parent = os.getpid()

        # Only system calls are safe here. Between fork and exec, a lock that another thread holds is never released.
        def limit() -> None:
            if _prctl is not None:
                _prctl(_PR_SET_PDEATHSIG, spec.death_signal)
                if os.getppid() != parent:  # the supervisor ended before that took effect
                    os._exit(1)
            if spec.open_files is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (spec.open_files, hard))
            if spec.processor is not None and hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, {spec.processor})

        # Not asyncio's own subprocesses: their wait() does not return while a grandchild holds the output open.
        popen = subprocess.Popen(  # noqa: ASYNC220 - starting takes a millisecond
            spec.argv,
            cwd=spec.cwd,
            env=dict(spec.environment),
            user=spec.user,
            group=spec.user,
            extra_groups=[] if spec.user else None,
            stdin=subprocess.DEVNULL,
            stdout=None if spec.in_terminal else subprocess.PIPE,
            stderr=None if spec.in_terminal else subprocess.STDOUT,
            start_new_session=True,
            pass_fds=spec.descriptors,
            preexec_fn=limit,
        )
        RUNNING.add(popen.pid)
        reader = asyncio.StreamReader()
        pipe = None
        if popen.stdout is None:
            reader.feed_eof()
        else:
            loop = asyncio.get_running_loop()
            pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), popen.stdout)
        return cls(spec, popen, reader, pipe, output)

    def signal(self, number: signal.Signals) -> None:
        if self.returncode is None:  # only `_reap` waits for it; until then the pid is not reused
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process and the rest of its process group."""
        if self.returncode is None:
            self._kill_group()

    async def end(self) -> None:
        """End the process at once: with the kill signal of its spec, then with SIGKILL if it still runs."""
        if self.spec.kill_signal is not signal.SIGKILL:
            self.signal(self.spec.kill_signal)
            await asyncio.wait({self._ended}, timeout=_KILL_SECONDS)
        self.kill()

    async def ended(self) -> int:
        """Wait for the process to end; return its exit code, negative for a signal. Output may still arrive."""
        return await asyncio.shield(self._ended)

    async def wait(self) -> int:
        """Wait for the process to end, and for its last output; return its exit code, negative for a signal."""
        code = await self.ended()
        await asyncio.wait({self._pump}, timeout=_LAST_WORDS_SECONDS)
        self._pump.cancel()
        if self._pipe is not None:
            self._pipe.close()
        return code

    async def stop(self) -> int:
        """Ask the process to stop, kill it after the stop timeout, and return its exit code."""
        self.signal(self.spec.stop_signal)
        await asyncio.wait({self._ended}, timeout=self.spec.stop_timeout)
        await self.end()
        return await self.wait()

    async def _reap(self) -> int:
        """Wait until the process itself has ended, kill the rest of its group, and only then reap it.

        The order matters: until the leader is reaped, the kernel gives the group's id to no other group.
        """
        try:
            await _readable(os.pidfd_open(self.pid))
        except (AttributeError, OSError):  # not Linux, or no descriptor is left
            await asyncio.to_thread(os.waitid, os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self._kill_group()
        self.returncode = self._popen.wait()
        RUNNING.discard(self.pid)
        return self.returncode

    def _kill_group(self) -> None:
        """Kill all processes of the group. That also closes their ends of the output pipe."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await reader.read(64 * 1024):
            *lines, rest = (rest + chunk).split(b"\n")
            while len(rest) > LONGEST_LINE:
                lines.append(rest[:LONGEST_LINE])
                rest = rest[LONGEST_LINE:]
            self._emit(lines)
        if rest:
            self._emit([rest])

    def _emit(self, lines: list[bytes]) -> None:
        texts = [line.decode(errors="replace").rstrip("\r") for line in lines]
        self.tail.extend(texts)
        self._output(texts)


async def _readable(descriptor: int) -> None:
    """Wait until a file descriptor can be read, and close it."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(descriptor, ready.set_result, None)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def describe_exit(code: int) -> str:
    """Describe an exit code, which is negative for a signal: "exit code 1", "killed by SIGKILL"."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def is_same_process(pid: int, started: float) -> bool:
    """Whether `pid` still runs, and is the process that started at `started` (seconds since the epoch)."""
    try:
        return abs(psutil.Process(pid).create_time() - started) < 0.05 and not has_ended(pid)
    except psutil.Error:
        return False


def has_ended(pid: int) -> bool:
    """Whether a process has ended. A zombie, which its parent has not reaped yet, counts as ended."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
