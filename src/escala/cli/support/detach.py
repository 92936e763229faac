"""Starts a supervisor in the background, in its own session, and watches it until it is open or has failed."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import typer

from escala.cli.support.console import out, print_table
from escala.cli.support.options import command_line
from escala.cli.support.tables import status_table
from escala.control.client import Client
from escala.errors import AlreadyRunning, NotRunning
from escala.project.project import Project

_LOOK_EVERY = 0.1


def start_detached(project: Project, settings: Sequence[str]) -> None:
    """Start `escala up` in the background and return when it is open. If it fails, exit with its exit code."""
    client = Client(project)
    try:
        raise AlreadyRunning(project.name, client.status(brief=True).pid)
    except NotRunning:
        pass
    project.layout.create()
    output = project.layout.log / "up.log"
    escala = [sys.executable, "-P", "-m", "escala"]
    with output.open("wb") as target:
        process = subprocess.Popen(
            [*escala, "up", "--no-output", "--settings-from-stdin", "--file", str(project.file)],
            cwd=project.root,
            stdin=subprocess.PIPE,
            stdout=target,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # it says by itself why it ended
        pipe.write(json.dumps(list(settings)).encode())  # not on its command line, which every user can read
    if not _follow(process, client, output):
        raise typer.Exit(process.returncode or 1)
    status = client.status()
    out.print()
    print_table(status_table(status))
    stop = command_line("down", project, settings)
    out.print(f"\n{status.project} is open at [bold]{status.url}[/] — stop it with `{stop}`")


def _follow(process: "subprocess.Popen[bytes]", client: Client, output: Path) -> bool:
    """Show the supervisor's output until it is open or has ended; return whether it is open."""
    with output.open(encoding="utf-8", errors="replace") as lines:
        while True:
            ended = process.poll() is not None
            is_open = not ended and _is_open(client)
            for line in lines:
                out.print(line.rstrip("\n"), markup=False)
            if ended or is_open:
                return is_open
            time.sleep(_LOOK_EVERY)


def _is_open(client: Client) -> bool:
    try:
        return client.status(brief=True).is_open
    except NotRunning:
        return False
