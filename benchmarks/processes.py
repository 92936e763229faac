"""Runs the servers to compare, and measures the processor time of a process and its children."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from escala.control.client import Client
from escala.project.project import Project

DEADLINE = 30.0


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process and its living children have used."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return sum(times.user + times.system for times in (member.cpu_times() for member in family))


@contextlib.contextmanager
def running(command: Sequence[str | Path], port: int, **environment: str) -> Iterator[int]:
    """Run a server until the end of the block; yield its pid when it accepts connections."""
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    try:
        wait_for_port(port, process)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with exit code {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit(f"{process.args!r} does not listen on {port}")


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty temporary folder that PostgreSQL's user may traverse, and delete it at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="escala-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def escala_up(folder: Path, settings: Sequence[str] = ()) -> Iterator[Project]:
    """Run the project in `folder` until the end of the block."""
    options = [word for setting in settings for word in ("--set", setting)]
    file = folder / "escala.toml"
    with (folder / "up.txt").open("wb") as output:
        command = [sys.executable, "-m", "escala", "up", "--no-output", "--file", str(file), *options]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    project = Project.open(file, settings=settings)
    try:
        end = time.monotonic() + DEADLINE
        while not _is_open(project):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"escala up did not open:\n{(folder / 'up.txt').read_text()}")
            time.sleep(0.05)
        yield project
    finally:
        process.terminate()
        process.wait(60)


def _is_open(project: Project) -> bool:
    try:
        return Client(project).status().is_open
    except Exception:  # any error means that it is not open yet
        return False


def token(project: Project) -> str:
    options = [word for setting in project.settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "escala", "token", "--file", str(project.file), "--user", "bench", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def program(name: str) -> Path | None:
    """Return the path of a program: next to this Python, on PATH, or in a system folder; None if there is none."""
    found = (
        shutil.which(name, path=str(Path(sys.executable).parent))
        or shutil.which(name)
        or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
    )
    return Path(found) if found else None


def required(name: str) -> Path:
    found = program(name)
    if found is None:
        raise SystemExit(f"this benchmark needs {name}: apt-get install {name}")
    return found
