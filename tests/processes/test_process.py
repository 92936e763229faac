import os
import signal
import sys
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
