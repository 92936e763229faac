"""Keeps one process alive: starts it, waits until it is ready, watches it, and restarts it.

::

    starting ──► ready ──► serving ──► draining
       ▲  │        │          │            │
       │  └────────┴──────────┴── it ended ┘
       └─ waiting ◄───────────┘                stop() from any state: stopping ──► stopped

ready: the probe succeeded. serving: those who depend on the process have been notified. draining: it gets no new work
and finishes what it has. waiting: it will be restarted after a pause. Every change of state is an event.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from typing import Any

from escala.background import report_bug
from escala.errors import EscalaError, ProcessFailed
from escala.events import Emit, ProcessEnded, ProcessReady, StartFailed, State, StateChanged
from escala.processes.backoff import Backoff
from escala.processes.lifecycle import Lifecycle
from escala.processes.process import Output, Process, describe_exit
from escala.processes.registry import Registry

PROBE_EVERY = 0.03
"""Seconds between two probes of whether a process is ready."""
_ABORT_SECONDS = 1.0
"""How long a hung process has to report where it hangs, before it is killed."""


class Child:
    """One process that is kept alive, over all its restarts."""

    def __init__(
        self,
        name: str,
        lifecycle: Lifecycle,
        *,
        emit: Emit,
        output: Output,
        registry: Registry,
        clean_up: Callable[[str, int], None] = lambda name, pid: None,
    ) -> None:
        """`clean_up` is called each time the process has ended, with the child's name and the process id."""
        self.name = name
        self.restarts = 0
        self.ready_at: float | None = None
        """time.time()"""
        self.process: Process | None = None
        """The latest process; None if none was started yet."""
        self.pid: int | None = None
        """The id of the running process; None while none runs."""
        self.failure: EscalaError | None = None
        """Why the last start failed before there was a process."""
        self.tried = asyncio.Event()
        """Set when the first start has an outcome: ready or failed."""
        self._state: State = "starting"
        self._death = ""
        """How the process last ended, and the last line of its output."""
        self._fault = ""
        """Why the process was aborted; empty if it ended by itself."""
        self._lifecycle = lifecycle
        self._emit = emit
        self._output = output
        self._registry = registry
        self._clean_up = clean_up
        self._backoff = Backoff()
        self._asked_to_stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def state(self) -> State:
        return self._state

    @property
    def crashing(self) -> bool:
        """Whether the process is in a crash loop."""
        return self._backoff.crashing

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"child {self.name}")
        self._task.add_done_callback(self._ended)

    async def wait_tried(self) -> bool:
        """Wait until the first start has succeeded or failed; return whether the process serves."""
        await self.tried.wait()
        return self.state == "serving"

    def drain(self) -> None:
        """Mark it as draining. The caller makes sure that it gets no new work."""
        if self._state == "serving":
            self._become("draining")

    def serve_again(self) -> None:
        if self._state == "draining":
            self._become("serving")

    def last_words(self) -> str:
        """Return the last lines of its output, joined into one."""
        return " / ".join(list(self.process.tail)[-3:] if self.process else []) or "it printed nothing"

    def why(self) -> str:
        """Return why it does not serve."""
        return str(self.failure) if self.failure is not None else self._death or f"it is {self._state}"

    async def stop(self) -> None:
        """Stop the process within its stop timeout, and keep it stopped."""
        self._asked_to_stop.set()
        if self._task is not None:
            await asyncio.shield(self._task)  # if the caller is cancelled, the process is still stopped
        self._become("stopped")

    def end_process(self) -> None:
        """Kill the process, so that it is restarted."""
        if self.process is not None:
            self.process.kill()

    def abort(self, reason: str) -> None:
        """Abort a process that hangs, so that it is restarted. A Python replica first reports where it hangs."""
        if self.process is not None and not self._fault:
            self._fault = reason
            self.process.signal(signal.SIGABRT)
            asyncio.get_running_loop().call_later(_ABORT_SECONDS, self.process.kill)

    def hurry(self) -> None:
        """Make a process that is being stopped end without waiting any longer."""
        if self.process is not None:
            self.process.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once. The caller must still await `stop`."""
        self._asked_to_stop.set()
        if self.process is not None and self._ending is None:
            self._ending = asyncio.create_task(self.process.end(), name=f"kill of {self.name}")

    def _become(self, state: State) -> None:
        if state != self._state:
            before, self._state = self._state, state
            self._emit(StateChanged(self.name, before, state))

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self.tried.set()
        if not task.cancelled() and (error := task.exception()) is not None:  # a bug here, not a crash of the process
            report_bug(f"the supervision of {self.name} was aborted", error)

    async def _run(self) -> None:
        while not self._asked_to_stop.is_set():
            try:
                pause = await self._live()
            except Exception as error:  # a failed start, or a bug: it must not end the watch
                pause = self._failed(error)
                with contextlib.suppress(Exception):
                    await self._lifecycle.on_end()
            self.tried.set()
            if pause is None:
                return
            self._become("waiting")  # also if the process could not be started
            self.restarts += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._asked_to_stop.wait()

    def _failed(self, error: Exception) -> float:
        """Report a start that failed before there was a process; return the pause until the next one."""
        if not isinstance(error, EscalaError | OSError | ValueError):
            report_bug(f"the supervision of {self.name} failed, but continues", error)
        self.failure = error if isinstance(error, EscalaError) else ProcessFailed(self.name, str(error) or repr(error))
        pause = self._backoff.next()
        self._emit(StartFailed(self.name, str(error) or repr(error), pause))
        return pause

    async def _live(self) -> float | None:
        """Run the process once, until it ends. Return the pause before the next start; None if a stop was requested."""
        self._become("starting")
        began = time.monotonic()
        self.failure = None
        self._fault = ""
        spec = await self._lifecycle.prepare()
        if self._asked_to_stop.is_set():
            return None
        self.process = process = await Process.start(spec, self._output)
        self.pid = process.pid
        self._registry.add(process)
        ended = asyncio.create_task(process.ended(), name=f"end of {self.name}")
        asked = asyncio.create_task(self._asked_to_stop.wait(), name=f"stop of {self.name}")
        try:
            failure = await self._until_ready(ended, asked)
            if failure is None:
                await self._serve(process, began, ended, asked)
            if not ended.done():
                self._become("stopping")
                await process.stop()
        finally:
            asked.cancel()
            if not ended.done():  # something above failed, but the process still runs
                process.kill()
            code = await ended
            self._become("stopping" if self._asked_to_stop.is_set() else "waiting")
            self.ready_at = self.pid = None
            self._registry.remove(process)
            self._clean_up(self.name, process.pid)
        if self._asked_to_stop.is_set():
            await process.wait()
            return None
        # A first version of the reason, for calls of `why` before the output has ended.
        self._death = reason = failure or self._fault or describe_exit(code)
        await self._lifecycle.on_end()
        await process.wait()  # after on_end: a process of another group may hold the output open
        pause = self._backoff.next()
        said = [line.strip() for line in process.tail if line.strip()]
        self._death = f"{reason} ({said[-1]})" if said else reason
        self._emit(ProcessEnded(self.name, reason, tuple(process.tail), failure is None, pause, self.crashing))
        return pause

    async def _serve(
        self, process: Process, began: float, ended: "asyncio.Task[int]", asked: "asyncio.Task[Any]"
    ) -> None:
        """Become ready, notify those who depend on the process, and serve until it ends or a stop is requested."""
        self._become("ready")
        await self._lifecycle.on_ready()
        if ended.done() or asked.done():
            return
        self._become("serving")
        self.ready_at = time.time()
        self._backoff.ready()
        self._emit(ProcessReady(self.name, process.pid, time.monotonic() - began, self.restarts))
        self.tried.set()
        await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)

    async def _until_ready(self, ended: "asyncio.Task[int]", asked: "asyncio.Task[Any]") -> str | None:
        """Wait until the process is ready. Return None if it is, or else why it did not become ready."""
        probing = asyncio.create_task(self._probe(), name=f"probe of {self.name}")
        timeout = self._lifecycle.start_timeout
        await asyncio.wait({probing, ended, asked}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            probing.cancel()
            return describe_exit(ended.result())
        if probing.done():
            try:
                probing.result()
            except EscalaError as error:
                return str(error)
            return None
        probing.cancel()
        return "a stop was requested" if asked.done() else f"not ready within {timeout:g} s"

    async def _probe(self) -> None:
        while True:
            try:
                return await self._lifecycle.probe()
            except OSError:
                await asyncio.sleep(PROBE_EVERY)
