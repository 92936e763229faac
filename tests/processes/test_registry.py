import asyncio
import sys
from pathlib import Path

from escala.processes.process import Process, ProcessSpec, has_ended
from escala.processes.records import Records
from escala.processes.registry import Registry


def sleeper(name: str, code: str = "import time; time.sleep(60)") -> ProcessSpec:
    return ProcessSpec(name=name, argv=(sys.executable, "-c", code), cwd=Path("/"), environment={})


async def test_what_was_left_is_ended(tmp_path: Path) -> None:
    dead = Registry(tmp_path / "processes.json", Records(lambda event: None))
    process = await Process.start(sleeper("web/1"), lambda lines: None)
    dead.add(process)
    await asyncio.sleep(0)  # now it watches the process, which somebody else is about to wait for
    found = await asyncio.to_thread(Registry(tmp_path / "processes.json", Records(lambda event: None)).stop_leftovers)
    assert [(left.name, left.pid) for left in found] == [("web/1", process.pid)]
    await process.wait()  # its exit code went to whichever of the two looked first
    assert Registry(tmp_path / "processes.json", Records(lambda event: None)).stop_leftovers() == []


async def test_a_reused_pid_is_left_alone(tmp_path: Path) -> None:
    process = await Process.start(sleeper("innocent"), lambda lines: None)
    path = tmp_path / "processes.json"
    path.write_text(f'[{{"name": "web/1", "pid": {process.pid}, "started": 1.0, "stop_signal": 9}}]')
    assert Registry(path, Records(lambda event: None)).stop_leftovers() == []
    assert process.returncode is None
    await process.stop()


def test_a_damaged_list_is_no_list(tmp_path: Path) -> None:
    path = tmp_path / "processes.json"
    path.write_text("{nonsense")
    assert Registry(path, Records(lambda event: None)).stop_leftovers() == []


async def test_removed_entries_are_gone(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "processes.json", Records(lambda event: None))
    process = await Process.start(sleeper("web/1"), lambda lines: None)
    registry.add(process)
    registry.remove(process)
    assert (tmp_path / "processes.json").read_text() == "[]"
    await process.stop()


async def test_what_a_dead_process_started_is_ended_too(tmp_path: Path) -> None:
    child = "import time; time.sleep(60)"
    spec = sleeper(
        "web/1", f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}]); p.wait()"
    )
    starter = f"""
import asyncio, os, signal, sys
from pathlib import Path
from escala.processes.process import Process, ProcessSpec
from escala.processes.records import Records
from escala.processes.registry import Registry
async def main():
    process = await Process.start(ProcessSpec(name="web/1", argv={spec.argv!r}, cwd=Path("/")), print)
    Registry(Path({str(tmp_path)!r}) / "processes.json", Records(lambda event: None)).add(process)
    while not (found := Path(f"/proc/{{process.pid}}/task/{{process.pid}}/children").read_text().split()):
        await asyncio.sleep(0.01)
    print(found[0], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    lines: list[str] = []
    dead = await Process.start(sleeper("supervisor", starter), lines.extend)
    await dead._ended
    grandchild = int(lines[0])
    assert not has_ended(grandchild)
    await asyncio.to_thread(Registry(tmp_path / "processes.json", Records(lambda event: None)).stop_leftovers)
    assert has_ended(grandchild)
    await dead.wait()
