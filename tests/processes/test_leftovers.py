"""What replicas start ends with them, and what only records does not stop what it records."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from escala.processes.ports import free_port
from escala.processes.process import has_ended
from tests.support import Up, wait_until, write

APP = """
import os, subprocess, sys
from pathlib import Path

FAMILY = Path("family")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive(); await send({"type": "lifespan.startup.complete"})
        await receive(); await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/web/start":
        start()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})

def start():
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    child = subprocess.Popen(sleep)
    apart = subprocess.Popen(sleep, start_new_session=True)
    # A daemon: its parent ends at once, in a session of its own.
    options = "start_new_session=True, stdout=-3, stderr=-3"
    twice = f"import subprocess, sys; print(subprocess.Popen(sys.argv[1:], {options}).pid)"
    daemon = subprocess.run([sys.executable, "-c", twice, *sleep], capture_output=True, text=True).stdout
    FAMILY.write_text(f"{child.pid} {apart.pid} {daemon}")
"""


def project(folder: Path, more: str = "") -> Path:
    write(folder, web__py=APP)
    (folder / "escala.toml").write_text(
        f"""
[project]
name = "left"
[gateway]
bind = "127.0.0.1:{free_port()}"
public = true
[services.web]
app = "web:app"
routes = ["/web"]
{more}
"""
    )
    return folder / "escala.toml"


def family(up: Up) -> list[int]:
    """Let the replica start helpers of all kinds; return their process ids."""
    httpx.get(f"{up.url}/web/start", timeout=20)
    members = [int(word) for word in (up.file.parent / "family").read_text().split()]
    assert len(members) == 3
    assert all(psutil.pid_exists(pid) for pid in members)
    return members


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) is Linux's")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_helpers_end_with_their_replica(home: Path, number: signal.Signals) -> None:
    with Up(project(home)) as up:
        up.wait_open()
        members = family(up)
        os.kill(up.replicas("web")[0]["pid"], number)
        wait_until(lambda: all(has_ended(pid) for pid in members), "they are gone")
        wait_until(lambda: "web/1 left 2 processes behind" in up.said(), "it is told")
        wait_until(lambda: up.replicas("web")[0]["state"] == "serving", "another serves")
        wait_until(lambda: not any(psutil.pid_exists(pid) for pid in members), "somebody has waited for them")


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) is Linux's")
def test_helpers_end_with_the_project(home: Path) -> None:
    with Up(project(home)) as up:
        up.wait_open()
        members = family(up)
    assert all(has_ended(pid) for pid in members)


def _is_root() -> bool:
    return os.geteuid() == 0


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system with room for a project, and little more."""
    if not _is_root():
        pytest.skip("to mount a small file system takes root")
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m,mode=711", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill(path: Path) -> None:
    """Write until there is no byte left."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    for size in (1024**2, 4096, 1):
        with contextlib.suppress(OSError):
            while True:
                os.write(descriptor, b"x" * size)
    os.close(descriptor)


def test_a_full_disk_stops_nothing(folder: Path, small_disk: Path, postgres_url: str) -> None:
    """The embedded PostgreSQL has no part in it: it is external here."""
    file = project(folder, more=f'[engines.postgres]\nurl = "{postgres_url}"\n')
    with Up(file, "--set", f"project.state={small_disk / 'state'}") as up:
        up.wait_open()
        _fill(small_disk / "filler")
        before = up.replicas("web")[0]["pid"]
        os.kill(before, signal.SIGKILL)

        def reported() -> bool:
            status = up.status()
            return status["phase"] == "degraded" and any("No space left" in line for line in status["problems"])

        wait_until(reported, "status says it")
        assert "cannot be written" in up.said()
        (small_disk / "filler").unlink()
        wait_until(lambda: up.replicas("web")[0]["state"] == "serving", "it is started again", 40)
        assert up.replicas("web")[0]["pid"] != before
        assert httpx.get(f"{up.url}/web").status_code == 200
        wait_until(lambda: up.status()["phase"] == "ready", "all is written again")
        for _ in range(2):  # and is watched as before
            pid = up.replicas("web")[0]["pid"]
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: up.replicas("web")[0]["pid"] not in (None, pid), "again")  # type: ignore[misc]
