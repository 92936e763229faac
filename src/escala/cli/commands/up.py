"""The command `escala up`."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated

import typer

from escala.cli.support.console import out, print_table
from escala.cli.support.detach import start_detached
from escala.cli.support.options import File, Settings, command_line, open_project
from escala.cli.support.tables import status_table
from escala.processes.logs import Console, Logs
from escala.project.project import Project
from escala.supervisor.narrator import Narrator
from escala.supervisor.supervisor import Supervisor

Detach = Annotated[
    bool, typer.Option("--detach", "-d", help="Run in the background. Return when it is open; stop with `escala down`.")
]
Bind = Annotated[
    str | None,
    typer.Option("--bind", metavar="ADDRESS", help="The address for clients; short for --set gateway.bind=..."),
]
Output = Annotated[
    bool, typer.Option("--output/--no-output", help="Show the replicas' output here. It is logged in any case.")
]
FromStdin = Annotated[bool, typer.Option("--settings-from-stdin", hidden=True)]
"""Of `up --detach`: the settings are on standard input, a JSON list, since every user can read a command line."""


def up(
    file: File = None,
    settings: Settings = None,
    bind: Bind = None,
    detach: Detach = False,
    output: Output = True,
    settings_from_stdin: FromStdin = False,
) -> None:
    """Start the project: engines, replicas, gateway. Ctrl-C lets requests in flight finish, then stops it."""
    chosen = [*(settings or ()), *([f"gateway.bind={bind}"] if bind else ())]
    if settings_from_stdin:
        chosen += json.loads(sys.stdin.read())
    start(open_project(file, chosen), chosen, detach=detach, echo=output)


def start(project: Project, settings: Sequence[str], *, detach: bool, echo: bool) -> None:
    """Run a project until it is asked to stop: in this process, or with `detach` in the background."""
    if detach:
        start_detached(project, settings)
    else:
        asyncio.run(run_project(project, settings, echo=echo))


@contextmanager
def supervised(project: Project, *, echo: bool) -> Iterator[Supervisor]:
    """Provide a supervisor that describes its events on the console and in the project's logs."""
    project.layout.create()
    logs = Logs(project.layout.log, Console(), echo)
    try:
        yield Supervisor(project, logs, Narrator(logs.say, logs.note, shown=echo).tell)
    finally:
        logs.close()


async def run_project(
    project: Project,
    settings: Sequence[str],
    *,
    echo: bool,
    beside: Callable[[Supervisor], Awaitable[None]] | None = None,
) -> None:
    """Run a project until it is asked to stop. Once it is open, `beside` runs concurrently."""
    with supervised(project, echo=echo) as supervisor:
        opened = asyncio.Event()

        async def accompany() -> None:
            await opened.wait()
            await _tell(supervisor, settings)
            if beside is not None:
                await beside(supervisor)

        accompanying = asyncio.create_task(accompany())
        try:
            await supervisor.run(opened)
        finally:
            accompanying.cancel()
            with suppress(asyncio.CancelledError):
                await accompanying


async def _tell(supervisor: Supervisor, settings: Sequence[str]) -> None:
    if not out.is_terminal:  # for example the log of a service manager, or of `up --detach`
        return
    status = await supervisor.status.take(brief=False)
    stop = command_line("down", supervisor.project, settings)

    def show() -> None:
        supervisor.flush()
        out.print()
        print_table(status_table(status))
        out.print(f"\n{status.project} is open at [bold]{status.url}[/] — stop it with Ctrl-C or `{stop}`\n")

    await asyncio.to_thread(show)  # a terminal may be slow, or paused
