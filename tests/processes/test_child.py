"""One process kept alive, with real processes and real signals."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from escala.errors import StartError
from escala.events import Event, ProcessEnded, ProcessReady, StartFailed
from escala.processes.child import Child
from escala.processes.lifecycle import Lifecycle
from escala.processes.process import ProcessSpec, has_ended
from escala.processes.records import Records
from escala.processes.registry import Registry
from tests.support import eventually

SLEEP = "import time; print('up', flush=True); time.sleep(60)"


class Watched(Lifecycle):
    """A child with what happened to it."""

    def __init__(
        self, folder: Path, code: str, *, ready: Callable[[], bool] = lambda: True, timeout: float = 10, stop: float = 5
    ) -> None:
        self.events: list[Event] = []
        self.calls: list[str] = []
        self.states: list[str] = []
        """The child's state at each call to who must know."""
        self.lines: list[str] = []
        self.told = asyncio.Event()
        """Cleared, whoever must know takes their time."""
        self.told.set()
        self.prepare_error: Exception | None = None
        self.bugs: dict[str, Exception] = {}
        """What a duty raises, once."""

        self.argv = (sys.executable, "-c", code)
        self.folder, self.stop = folder, stop
        self.ready = ready
        self.start_timeout = timeout
        registry = Registry(folder / "processes.json", Records(lambda event: None))
        self.child = Child("web/1", self, emit=self.events.append, output=self.lines.extend, registry=registry)

    async def prepare(self) -> ProcessSpec:
        self.calls.append("prepare")
        if self.prepare_error:
            raise self.prepare_error
        return ProcessSpec(name="web/1", argv=self.argv, cwd=self.folder, environment={}, stop_timeout=self.stop)

    async def probe(self) -> None:
        self.fail("probe")
        if not self.lines or not self.ready():
            raise ConnectionRefusedError

    async def on_ready(self) -> None:
        await self._call("ready")

    async def on_end(self) -> None:
        await self._call("end")

    async def _call(self, name: str) -> None:
        self.calls.append(name)
        self.fail(name)
        self.states.append(self.child.state)
        await self.told.wait()

    def fail(self, duty: str) -> None:
        if duty in self.bugs:
            raise self.bugs.pop(duty)

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def pid(self) -> int:
        assert self.child.process is not None
        return self.child.process.pid


async def test_ready_killed_and_back(tmp_path: Path) -> None:
    watched = Watched(tmp_path, SLEEP)
    watched.child.start()
    assert await watched.child.wait_tried()
    first = watched.pid
    os.kill(first, signal.SIGKILL)

    async def back() -> bool:
        return watched.child.state == "serving" and watched.pid != first

    await eventually(back, "it is back")
    (ended,) = watched.of(ProcessEnded)
    assert isinstance(ended, ProcessEnded)
    assert (ended.reason, ended.was_ready, ended.next_try) == ("killed by SIGKILL", True, 0.1)
    assert watched.child.restarts == 1
    assert watched.calls == ["prepare", "ready", "end", "prepare", "ready"]
    # It serves only when the others know, and no longer from the moment it ended.
    assert watched.states == ["ready", "waiting", "ready"]
    await watched.child.stop()
    assert watched.child.state == "stopped"
    assert len(watched.of(ProcessReady)) == 2


async def test_one_that_cannot_start_says_why(tmp_path: Path) -> None:
    watched = Watched(tmp_path, "import sys; print('the reason'); sys.exit(7)", ready=lambda: False)
    watched.child.start()
    assert not await watched.child.wait_tried()
    (ended, *_) = watched.of(ProcessEnded)
    assert isinstance(ended, ProcessEnded)
    assert (ended.reason, ended.was_ready, ended.tail) == ("exit code 7", False, ("the reason",))
    await watched.child.stop()


@pytest.mark.parametrize("duty", ["prepare", "probe", "ready", "end"])
async def test_a_bug_in_a_duty_ends_no_watch(tmp_path: Path, duty: str) -> None:
    """It is reported, its process is ended, and the child is started again."""
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    watched = Watched(tmp_path, SLEEP)
    bug = KeyError("a bug")
    if duty == "prepare":
        watched.prepare_error = bug
    else:
        watched.bugs[duty] = bug
    watched.child.start()
    if duty == "end":
        assert await watched.child.wait_tried()
        os.kill(watched.pid, signal.SIGKILL)

    async def told() -> bool:
        return bool(reported)

    await eventually(told, "it is reported")
    watched.prepare_error = None

    async def serves() -> bool:
        return watched.child.state == "serving"

    await eventually(serves, "it serves")
    assert reported == [bug]
    assert watched.child.restarts == 1
    await watched.child.stop()
    assert has_ended(watched.pid)


async def test_one_that_never_gets_ready_is_stopped(tmp_path: Path) -> None:
    watched = Watched(tmp_path, SLEEP, ready=lambda: False, timeout=0.3)
    watched.child.start()
    assert not await watched.child.wait_tried()
    (ended, *_) = watched.of(ProcessEnded)
    assert isinstance(ended, ProcessEnded)
    assert ended.reason == "not ready within 0.3 s"
    await watched.child.stop()


async def test_one_that_cannot_be_prepared_is_tried_again(tmp_path: Path) -> None:
    watched = Watched(tmp_path, SLEEP)
    watched.prepare_error = StartError("no port")
    watched.child.start()
    assert not await watched.child.wait_tried()
    assert str(watched.child.failure) == "no port"
    assert watched.of(StartFailed)
    watched.prepare_error = None

    async def ready() -> bool:
        return watched.child.state == "serving"

    await eventually(ready, "it is ready in the end")
    await watched.child.stop()


@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"])
async def test_a_signal_between_ready_and_serving(tmp_path: Path, number: str) -> None:
    watched = Watched(tmp_path, SLEEP)
    watched.told.clear()
    watched.child.start()

    async def is_ready() -> bool:
        return watched.child.state == "ready"

    await eventually(is_ready, "it is ready")
    first = watched.pid
    os.kill(first, signal.Signals[number])
    await eventually(lambda: _has_ended(first), "the process is gone")
    watched.told.set()

    async def back() -> bool:
        return watched.child.state == "serving" and watched.pid != first

    await eventually(back, "another serves")
    assert watched.calls == ["prepare", "ready", "end", "prepare", "ready"]
    await watched.child.stop()


async def _has_ended(pid: int) -> bool:
    return has_ended(pid)


async def test_one_that_ignores_term_is_killed_when_its_time_is_up(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP
    watched = Watched(tmp_path, code, stop=0.3)
    watched.child.start()
    await watched.child.wait_tried()
    pid = watched.pid
    async with asyncio.timeout(5):
        await watched.child.stop()
    assert has_ended(pid)


async def test_its_whole_family_ends_with_it(tmp_path: Path) -> None:
    grandchild_code = f"subprocess.Popen([sys.executable, '-c', {SLEEP!r}])"
    code = f"import subprocess, sys; p = {grandchild_code}; print(p.pid, flush=True); p.wait()"
    watched = Watched(tmp_path, code)
    watched.child.start()
    await watched.child.wait_tried()
    grandchild = int(watched.lines[0])
    await watched.child.stop()

    async def gone() -> bool:
        return has_ended(grandchild)

    await eventually(gone, "the grandchild is gone", 5)


async def test_who_must_know_does_not_wait_for_last_words(tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    heir = f"""
import pathlib, time
end = time.monotonic() + 10
while not pathlib.Path({str(go_on)!r}).exists() and time.monotonic() < end: time.sleep(0.01)
print('late', flush=True)
"""
    code = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {heir!r}], start_new_session=True)\n{SLEEP}"
    )
    watched = Watched(tmp_path, code)
    watched.child.start()
    assert await watched.child.wait_tried()
    pid = watched.child.pid
    assert pid == watched.pid
    os.kill(pid, signal.SIGKILL)

    async def told() -> bool:
        return "end" in watched.calls

    async def heard() -> bool:
        return "late" in watched.lines

    await eventually(told, "who must know was told")
    assert watched.child.pid is None
    assert watched.child.state == "waiting"
    go_on.touch()
    await eventually(heard, "what holds the output open was heard after that")
    await watched.child.stop()


async def test_stopping_while_it_starts(tmp_path: Path) -> None:
    watched = Watched(tmp_path, SLEEP, ready=lambda: False)
    watched.child.start()

    async def started() -> bool:
        return bool(watched.lines)

    await eventually(started, "the process runs")
    async with asyncio.timeout(5):
        await watched.child.stop()
    assert watched.of(ProcessEnded) == []


async def test_stopping_while_it_waits_for_its_next_try(tmp_path: Path) -> None:
    watched = Watched(tmp_path, "raise SystemExit(1)")
    watched.child.start()
    await watched.child.wait_tried()
    for _ in range(4):
        watched.child._backoff.next()
    async with asyncio.timeout(5):
        await watched.child.stop()
    assert watched.child.state == "stopped"


async def test_who_gives_up_waiting_for_the_stop_does_not_break_it_off(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP
    watched = Watched(tmp_path, code, stop=0.5)
    watched.child.start()
    assert await watched.child.wait_tried()
    pid = watched.pid
    waiting = asyncio.create_task(watched.child.stop())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not has_ended(pid)
    await watched.child.stop()
    assert has_ended(pid)
    assert watched.child.state == "stopped"
