"""The command `escala demo`."""

import asyncio
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

import escala
from escala.cli.commands import token, up
from escala.cli.support.options import Settings
from escala.config import FILE, Address
from escala.errors import AlreadyRunning, EscalaError, StartError
from escala.processes import ports
from escala.project.lock import Lock
from escala.project.project import Project

Check = Annotated[
    bool, typer.Option("--check", help="Start it, call every part through the gateway, stop, and report the results.")
]


def demo(settings: Settings = None, check: Check = False, detach: up.Detach = False, output: up.Output = True) -> None:
    """Start the laboratory: the reference system on real data."""
    _require_packages()
    file = laboratory() / FILE
    if check:
        raise typer.Exit(asyncio.run(_check(_beside_others(file, list(settings or ())))))
    up.start(Project.open(file, settings=settings or ()), settings or (), detach=detach, echo=output)


def laboratory() -> Path:
    """Return the laboratory's folder: inside the package if it is installed, under examples/ in a checkout."""
    package = Path(escala.__file__).parent
    for folder in (package / "examples" / "laboratorio", package.parents[1] / "examples" / "laboratorio"):
        if (folder / FILE).is_file():
            return folder
    raise EscalaError("this installation of Escala does not contain its examples; install it again from the wheel")


def _require_packages() -> None:
    missing = [name for name in ("duckdb", "fastapi") if importlib.util.find_spec(name) is None]
    if missing:
        raise StartError(f"the laboratory needs {' and '.join(missing)}; run: pip install 'escala[demo]'")


def _beside_others(file: Path, settings: list[str]) -> Project:
    """Open the laboratory on free ports, so that it can run next to a demo, or another program that uses its ports."""
    project = Project.open(file, settings=settings)
    taken = not ports.is_free(project.config.gateway.bind)
    if taken:
        settings.append(f"gateway.bind=127.0.0.1:{ports.free_port()}")
    for name, service in project.config.services.items():
        numbers = [n if ports.is_free(Address("127.0.0.1", n)) else ports.free_port() for n in service.ports]
        if numbers != list(service.ports):
            settings.append(f"services.{name}.ports={numbers}")
    if _is_running(project):
        state = project.layout.state
        settings.append(f"project.state={state.with_name(f'{state.name}-check-{os.getpid()}')}")
    return Project.open(file, settings=settings)


def _is_running(project: Project) -> bool:
    project.layout.create()
    lock = Lock(project)
    try:
        lock.take()
    except AlreadyRunning:
        return True
    lock.release()
    return False


async def _check(project: Project) -> int:
    """Run the laboratory, run its own check against it, and return the check's exit code."""
    opened = asyncio.Event()
    opening = asyncio.create_task(opened.wait())
    try:
        with up.supervised(project, echo=False) as supervisor:
            running = asyncio.create_task(supervisor.run(opened))
            await asyncio.wait({running, opening}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
                return 1  # a stop was requested before it was open
            code = await _call_everything(project)
            supervisor.ask_to_stop("the check has finished")
            await running
    finally:
        opening.cancel()
        if "-check-" in project.layout.state.name:
            shutil.rmtree(project.layout.state, ignore_errors=True)
    return code


async def _call_everything(project: Project) -> int:
    environment = {
        **os.environ,
        "LABORATORIO_URL": project.config.gateway.bind.url,
        "LABORATORIO_TOKEN": token.issue(project, "check"),
        "LABORATORIO_WORKER": f"http://127.0.0.1:{project.config.services['worker'].ports[0]}",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "laboratorio.check", cwd=project.root, env=environment
    )
    return await process.wait()
