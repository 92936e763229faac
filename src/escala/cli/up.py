"""The command `escala up`."""

import asyncio
from typing import Annotated

import typer

from escala.cli.console import out
from escala.cli.detach import start_detached
from escala.cli.options import File, Settings, command_line, open_project
from escala.cli.tables import status_table
from escala.project import Project
from escala.supervisor.logs import Console, Logs
from escala.supervisor.narrator import Narrator
from escala.supervisor.supervisor import Supervisor

Detach = Annotated[
    bool, typer.Option("--detach", "-d", help="Return when everything is open; stop with `escala down`.")
]
Bind = Annotated[
    str | None,
    typer.Option("--bind", metavar="ADDRESS", help="Where clients connect; short for --set gateway.bind=..."),
]
Output = Annotated[
    bool, typer.Option("--output/--no-output", help="Whether the replicas' output is shown; it is always kept.")
]


def up(
    file: File = None, settings: Settings = None, bind: Bind = None, detach: Detach = False, output: Output = True
) -> None:
    """Start the project: engines, replicas, gateway. Ctrl-C drains and stops it."""
    chosen = [*(settings or ()), *([f"gateway.bind={bind}"] if bind else ())]
    project = open_project(file, chosen)
    if detach:
        start_detached(project, chosen)
    else:
        run(project, echo=output)


def run(project: Project, *, echo: bool = True) -> None:
    """Run a project in this process until it is asked to stop."""
    asyncio.run(_run(project, echo))


async def _run(project: Project, echo: bool) -> None:
    project.layout.create()
    logs = Logs(project.layout.log, Console(), echo)
    supervisor = Supervisor(project, logs, Narrator(logs.say).tell)
    opened = asyncio.Event()
    telling = asyncio.create_task(_tell(supervisor, opened))
    try:
        await supervisor.run(opened)
    finally:
        telling.cancel()
        logs.close()


async def _tell(supervisor: Supervisor, opened: asyncio.Event) -> None:
    await opened.wait()
    status = supervisor.status()
    out.print()
    out.print(status_table(status))
    stop = command_line("down", supervisor.project)
    out.print(f"\n{status.project} is open at [bold]{status.url}[/] — stop it with Ctrl-C or `{stop}`\n")
