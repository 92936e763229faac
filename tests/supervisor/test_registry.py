import asyncio
import signal
import sys
from pathlib import Path

from escala.process import Process, ProcessSpec
from escala.supervisor.registry import Registry


def sleeper(name: str, code: str = "import time; time.sleep(60)") -> ProcessSpec:
    return ProcessSpec(name=name, argv=(sys.executable, "-c", code), cwd=Path("/"), environment={})


async def test_what_was_left_is_ended(tmp_path: Path) -> None:
    dead = Registry(tmp_path / "processes.json")
    process = await Process.start(sleeper("web/1"), lambda line: None)
    dead.add(process)
    found = await asyncio.to_thread(Registry(tmp_path / "processes.json").stop_leftovers)
    assert [(left.name, left.pid) for left in found] == [("web/1", process.pid)]
    assert await process.wait() == -signal.SIGTERM
    assert Registry(tmp_path / "processes.json").stop_leftovers() == []


async def test_a_reused_pid_is_left_alone(tmp_path: Path) -> None:
    process = await Process.start(sleeper("innocent"), lambda line: None)
    path = tmp_path / "processes.json"
    path.write_text(f'[{{"name": "web/1", "pid": {process.pid}, "started": 1.0, "stop_signal": 9}}]')
    assert Registry(path).stop_leftovers() == []
    assert process.returncode is None
    await process.stop()


def test_a_damaged_list_is_no_list(tmp_path: Path) -> None:
    path = tmp_path / "processes.json"
    path.write_text("{nonsense")
    assert Registry(path).stop_leftovers() == []


async def test_removed_entries_are_gone(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "processes.json")
    process = await Process.start(sleeper("web/1"), lambda line: None)
    registry.add(process)
    registry.remove(process)
    assert (tmp_path / "processes.json").read_text() == "[]"
    await process.stop()
