import asyncio
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from escala.processes.process import LONGEST_LINE, Process, ProcessSpec, describe_exit, has_ended
from tests.support import eventually


def spec(code: str, **more: object) -> ProcessSpec:
    return ProcessSpec(name="p", argv=(sys.executable, "-c", code), cwd=Path("/"), environment={}, **more)  # type: ignore[arg-type]


async def run(code: str) -> tuple[int, list[str]]:
    lines: list[str] = []
    process = await Process.start(spec(code), lines.extend)
    return await process.wait(), lines


async def test_output_line_by_line() -> None:
    code, lines = await run(
        "import sys; print('out', flush=True); sys.stderr.write('err\\r\\nno end'); raise SystemExit(3)"
    )
    assert code == 3
    assert sorted(lines) == ["err", "no end", "out"]


async def test_a_flood_is_taken_and_its_end_kept() -> None:
    process = await Process.start(spec("import sys\nfor n in range(200_000): print('x' * 500, n)"), lambda lines: None)
    assert await process.wait() == 0
    assert process.tail[-1].endswith(" 199999")


async def test_lines_without_end_and_bytes_that_are_no_text() -> None:
    size = 3 * LONGEST_LINE + 5
    _, lines = await run(f"import sys; sys.stdout.buffer.write(b'\\xff' * {size})")
    assert [len(line) for line in lines] == [LONGEST_LINE] * 3 + [5]


async def test_a_program_that_does_not_exist() -> None:
    with pytest.raises(FileNotFoundError):
        await Process.start(ProcessSpec(name="p", argv=("/no/such",), cwd=Path("/")), lambda lines: None)


@pytest.mark.parametrize("own_session", [False, True])
async def test_a_grandchild_that_holds_the_output_open_does_not_hold_up_the_end(own_session: bool) -> None:
    child = f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)'], start_new_session={own_session})"
    began = time.monotonic()
    code, lines = await run(f"import subprocess, sys; print({child}.pid)")
    assert code == 0
    assert time.monotonic() - began < 15
    if own_session:
        os.kill(int(lines[0]), signal.SIGKILL)


async def test_killed_by_the_kernel_when_the_starter_has_ended() -> None:
    """The starter is a process of its own, killed with SIGKILL; what it started must not outlive it."""
    starter = """
import asyncio, os, signal, sys
from pathlib import Path
from escala.processes.process import Process, ProcessSpec
async def main():
    argv = (sys.executable, "-c", "import time; time.sleep(60)")
    process = await Process.start(ProcessSpec(name="p", argv=argv, cwd=Path("/")), print)
    print(process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    lines: list[str] = []
    process = await Process.start(spec(starter), lines.extend)
    assert await process.wait() == -signal.SIGKILL

    async def gone() -> bool:
        return has_ended(int(lines[0]))

    await eventually(gone, "the orphan is gone", 5)


def test_exit_codes_in_words() -> None:
    assert [describe_exit(code) for code in (0, 2, -9, -200)] == [
        "exit code 0",
        "exit code 2",
        "killed by SIGKILL",
        "killed by signal 200",
    ]


async def test_what_is_left_of_the_group_dies_before_anybody_waits_for_the_leader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As long as the leader is a zombie, its group's number belongs to nobody else."""
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    lines: list[str] = []
    process = await Process.start(spec(f"import subprocess, sys; print({child}.pid)"), lines.extend)
    waited: list[bool] = []
    wait = process._popen.wait

    def waits(*arguments: object) -> int:
        waited.append(has_ended(int(lines[0])) if lines else True)
        return wait()

    monkeypatch.setattr(process._popen, "wait", waits)
    killed: list[int] = []
    kill_group = process._kill_group

    def kills() -> None:
        killed.append(len(waited))
        kill_group()

    monkeypatch.setattr(process, "_kill_group", kills)
    await process.wait()
    assert killed == [0]
    assert len(waited) == 1
    assert (await _gone(int(lines[0]))) is True


async def _gone(pid: int) -> bool:
    async def gone() -> bool:
        return has_ended(pid)

    return bool(await eventually(gone, "the grandchild is gone"))


async def test_many_starts_beside_busy_threads() -> None:
    """Between fork and exec only system calls are made, so no lock of another thread can be in the way."""
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            bytes(bytearray(10_000))
            logging.getLogger("busy").debug("x")
            ctypes.CDLL(None).getpid()

    threads = [threading.Thread(target=busy, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        async with asyncio.timeout(120):
            for _ in range(50):
                quick = ProcessSpec(name="p", argv=("/bin/true",), cwd=Path("/"))
                assert await (await Process.start(quick, lambda lines: None)).wait() == 0
    finally:
        stop.set()


async def test_a_program_with_an_end_of_its_own_is_asked_for_it_first() -> None:
    code = "import signal, sys; signal.signal(signal.SIGQUIT, lambda *_: sys.exit(7)); print('up', flush=True)"
    lines: list[str] = []
    process = await Process.start(
        spec(f"{code}\nimport time\ntime.sleep(60)", kill_signal=signal.SIGQUIT), lines.extend
    )

    async def up() -> bool:
        return lines == ["up"]

    await eventually(up, "it runs")
    await process.end()
    assert await process.wait() == 7
