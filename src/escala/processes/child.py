"""Keeping one process alive: start, wait until it is ready, watch, start again.

::

    starting ──► ready ──► serving ──► draining
       ▲  │        │          │            │
       │  └────────┴──────────┴── it ended ┘
       └─ waiting ◄───────────┘                stop() from any state: stopping ──► stopped

ready: it says that it is well; serving: whoever must know has been told; draining: it finishes what it has; waiting:
for its next start. Every change is an event.
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
"""Seconds between two looks at whether a process is ready."""
_ABORT_SECONDS = 1.0
"""How long a process that hangs may take to say where."""


class Child:
    """One entry of the supervisor's table."""

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
        """`clean_up` gets the name, and the id of each process of that name that has ended."""
        self.name = name
        self.restarts = 0
        self.ready_at: float | None = None
        """time.time()"""
        self.process: Process | None = None
        """The last one, if there was any."""
        self.pid: int | None = None
        """Of the living process: it comes and goes with the state."""
        self.failure: EscalaError | None = None
        """Why the last start could not be tried."""
        self.tried = asyncio.Event()
        """Set when the first start has an outcome: ready or failed."""
        self._state: State = "starting"
        self._death = ""
        """How the process ended last, and what it said."""
        self._fault = ""
        """Why the process was ended, where it did not end by itself."""
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
        """Whether it dies again and again, so that its starts come ever more slowly."""
        return self._backoff.crashing

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"child {self.name}")
        self._task.add_done_callback(self._ended)

    async def wait_tried(self) -> bool:
        """Wait for the first outcome; return whether it is good."""
        await self.tried.wait()
        return self.state == "serving"

    def drain(self) -> None:
        """Note that it gets nothing new, whoever sees to that."""
        if self._state == "serving":
            self._become("draining")

    def serve_again(self) -> None:
        if self._state == "draining":
            self._become("serving")

    def last_words(self) -> str:
        """Return the last lines of its output as one."""
        return " / ".join(list(self.process.tail)[-3:] if self.process else []) or "it said nothing"

    def why(self) -> str:
        """Say why it does not serve."""
        return str(self.failure) if self.failure is not None else self._death or f"it is {self._state}"

    async def stop(self) -> None:
        """Stop the process within its stop timeout, and keep it stopped."""
        self._asked_to_stop.set()
        if self._task is not None:
            await asyncio.shield(self._task)  # who waits may give up; the process is stopped all the same
        self._become("stopped")

    def end_process(self) -> None:
        """End the process at once, so that it is started again."""
        if self.process is not None:
            self.process.kill()

    def abort(self, reason: str) -> None:
        """End a process that hangs, so that it is started again; a Python replica says first where it hung."""
        if self.process is not None and not self._fault:
            self._fault = reason
            self.process.signal(signal.SIGABRT)
            asyncio.get_running_loop().call_later(_ABORT_SECONDS, self.process.kill)

    def hurry(self) -> None:
        """Let a process that is being stopped leave what it still waits for."""
        if self.process is not None:
            self.process.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once; `stop` still has to be awaited."""
        self._asked_to_stop.set()
        if self.process is not None and self._ending is None:
            self._ending = asyncio.create_task(self.process.end(), name=f"kill of {self.name}")

    def _become(self, state: State) -> None:
        if state != self._state:
            before, self._state = self._state, state
            self._emit(StateChanged(self.name, before, state))

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self.tried.set()
        if not task.cancelled() and (error := task.exception()) is not None:  # a bug here, not a death of the process
            report_bug(f"the watch over {self.name} broke off", error)

    async def _run(self) -> None:
        while not self._asked_to_stop.is_set():
            try:
                pause = await self._live()
            except Exception as error:  # a bug here, or of what it was made of: it must not end the watch
                pause = self._failed(error)
                with contextlib.suppress(Exception):
                    await self._lifecycle.on_end()
            self.tried.set()
            if pause is None:
                return
            self._become("waiting")  # also where the process could not even be started
            self.restarts += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._asked_to_stop.wait()

    def _failed(self, error: Exception) -> float:
        """Report that a start could not be tried; return the pause until the next one."""
        if not isinstance(error, EscalaError | OSError | ValueError):
            report_bug(f"the watch over {self.name} failed, and goes on", error)
        self.failure = error if isinstance(error, EscalaError) else ProcessFailed(self.name, str(error) or repr(error))
        pause = self._backoff.next()
        self._emit(StartFailed(self.name, str(error) or repr(error), pause))
        return pause

    async def _live(self) -> float | None:
        """Run the process once, to its end; return the pause until the next start, None where it was asked to end."""
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
            if not ended.done():  # something above failed, and the process lives
                process.kill()
            code = await ended
            self._become("stopping" if self._asked_to_stop.is_set() else "waiting")
            self.ready_at = self.pid = None
            self._registry.remove(process)
            self._clean_up(self.name, process.pid)
        if self._asked_to_stop.is_set():
            await process.wait()
            return None
        # In case that somebody asks before its output has ended.
        self._death = reason = failure or self._fault or describe_exit(code)
        await self._lifecycle.on_end()
        await process.wait()  # after who must know: somebody of another group may hold the output open
        pause = self._backoff.next()
        said = [line.strip() for line in process.tail if line.strip()]
        self._death = f"{reason} ({said[-1]})" if said else reason
        self._emit(ProcessEnded(self.name, reason, tuple(process.tail), failure is None, pause, self.crashing))
        return pause

    async def _serve(
        self, process: Process, began: float, ended: "asyncio.Task[int]", asked: "asyncio.Task[Any]"
    ) -> None:
        """Be ready, and serve once whoever must know has been told, until the process ends or is asked to."""
        self._become("ready")
        await self._lifecycle.on_ready()
        self._become("serving")
        self.ready_at = time.time()
        self._backoff.ready()
        self._emit(ProcessReady(self.name, process.pid, time.monotonic() - began, self.restarts))
        self.tried.set()
        await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)

    async def _until_ready(self, ended: "asyncio.Task[int]", asked: "asyncio.Task[Any]") -> str | None:
        """Wait for readiness; return why it did not come, or None."""
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
        return "asked to stop" if asked.done() else f"not ready within {timeout:g} s"

    async def _probe(self) -> None:
        while True:
            try:
                return await self._lifecycle.probe()
            except OSError:
                await asyncio.sleep(PROBE_EVERY)
