"""Helpers of the tests: projects, processes, and waiting on conditions instead of sleeping."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from escala.access_log.line import Entry, decode
from escala.access_log.segments import segments
from escala.cli.commands.token import issue
from escala.config import Config
from escala.control.client import Client
from escala.engines import Engine
from escala.errors import EscalaError
from escala.project.project import Project

REPOSITORY = Path(__file__).parents[1]
LABORATORY = REPOSITORY / "examples" / "laboratorio"
DEADLINE = 30.0

CHAOS = "CHAOS" in os.environ
long = pytest.mark.skipif(not CHAOS, reason="a long form; `make chaos` runs it")


def minimal_config(**sections: Any) -> Config:
    """Return a configuration with one service, and whatever else is given."""
    return Config.model_validate({"project": {"name": "tests"}, "services": {"web": {"app": "web:app"}}, **sections})


def wait_until(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """Return the condition's first true value; fail the test when it stays false."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {deadline:g} s")


async def eventually(condition: Callable[[], Awaitable[Any]], what: str, deadline: float = DEADLINE) -> Any:
    """`wait_until` for coroutines."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        value = await condition()
        if value:
            return value
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what}: not within {deadline:g} s")


@contextlib.contextmanager
def running_engine(engine: Engine) -> Iterator["subprocess.Popen[bytes]"]:
    """Run an embedded engine as a plain process until the end of the block."""
    engine.prepare()
    process = start_engine(engine)
    try:
        yield process
    finally:
        stop_engine(engine, process)


def start_engine(engine: Engine) -> "subprocess.Popen[bytes]":
    spec = engine.process()
    assert spec is not None
    process = subprocess.Popen(
        spec.argv,
        cwd=spec.cwd,
        env=dict(spec.environment),
        user=spec.user,
        group=spec.user,
        extra_groups=[] if spec.user else None,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: answers(engine), f"{engine.name} answers")
    return process


def stop_engine(engine: Engine, process: "subprocess.Popen[bytes]") -> None:
    spec = engine.process()
    assert spec is not None
    process.send_signal(spec.stop_signal)
    process.wait(DEADLINE)


def answers(engine: Engine) -> bool:
    try:
        with asyncio.Runner() as runner:
            runner.run(engine.probe())
    except OSError:
        return False
    return True


def write(folder: Path, **files: str) -> None:
    """Write files into a folder: `web__py` is web.py."""
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(textwrap.dedent(text).lstrip())


class Up:
    """`escala up` of a project as a process of its own."""

    def __init__(
        self, file: Path, *options: str, environ: dict[str, str] | None = None, output: Path | None = None
    ) -> None:
        self.file = file
        self.options = options
        self.output = output or file.parent / f"up-{time.monotonic_ns()}.txt"
        self._target = self.output.open("wb")
        self.environ = {**os.environ, **(environ or {})}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "escala", "up", "--file", str(file), *options],
            stdout=self._target,
            stderr=subprocess.STDOUT,
            env=self.environ,
        )

    @property
    def settings(self) -> list[str]:
        return [value for option, value in pairwise(self.options) if option == "--set"]

    @property
    def project(self) -> Project:
        return Project.open(self.file, settings=self.settings)

    @property
    def url(self) -> str:
        return self.project.config.gateway.bind.url

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def status(self) -> Any:
        return msgspec.to_builtins(Client(self.project).status())

    def replicas(self, service: str) -> list[dict[str, Any]]:
        return [p for p in self.status()["processes"] if p["service"] == service]

    def wait_open(self, deadline: float = 60.0) -> "Up":
        def is_open() -> bool:
            assert self.process.poll() is None, f"escala up ended:\n{self.said()}"
            try:
                return Client(self.project).status(brief=True).is_open
            except EscalaError:
                return False

        wait_until(is_open, "escala up is open", deadline)
        return self

    def wait_ended(self, deadline: float = 60.0) -> int:
        return self.process.wait(deadline)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        self._target.close()

    def __enter__(self) -> "Up":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def escala(
    *arguments: str, cwd: Path | None = None, environ: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "escala", *arguments],
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def access_log(project: Project) -> list[Entry]:
    """Return what the access log holds, the oldest first."""
    lines = [line for file in segments(project.layout.access_log) for line in file.read_bytes().splitlines()]
    return [decode(line) for line in lines]


def token_for(project: Project, *options: str) -> str:
    """Return what `escala token` with these options prints, without a process for it."""
    given = dict(zip(options[::2], options[1::2], strict=True))
    scopes = [given["--scope"]] if "--scope" in given else None
    return issue(project, given.get("--user", "tester"), scopes, given.get("--ttl"))


def client(url: str, token: str | None = None) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(base_url=url, headers=headers, timeout=30)
