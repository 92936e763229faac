"""The command `escala check`."""

import asyncio
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
from rich.markup import escape
from rich.table import Table

from escala.cli.support.console import err, out, print_table
from escala.cli.support.options import File, Settings, open_project
from escala.config import ServiceSettings
from escala.control.client import Client
from escala.engines import Engine, haproxy, postgres_engine, valkey_engine
from escala.engines.external import External
from escala.engines.postgres import max_connections
from escala.errors import ConfigError, EngineFailed, EscalaError, TaskClash
from escala.gateway.haproxy import certificates
from escala.processes import ports
from escala.processes.process import ProcessSpec
from escala.project.project import Project
from escala.supervisor.replicas.endpoints import NOWHERE, Endpoints
from escala.supervisor.replicas.spec import environment_for, program_path, replica_name, replica_spec
from escala.tasks.listing import ListedTask, require_one_function

_IMPORT_SECONDS = 60.0


def check(file: File = None, settings: Settings = None) -> None:
    """Check the project: read its file, import its services, and show what would run. Changes nothing."""
    project = open_project(file, settings)
    project.layout.require_usable()
    Endpoints(project).require_sockets()
    with ThreadPoolExecutor(max_workers=4) as pool:
        problems = [
            problem
            for problem in pool.map(lambda item: _load(project, *item), project.config.services.items())
            if problem
        ]
    problems += _clashes(project)
    binary = haproxy.find(project.config.engines.haproxy.binary)
    try:
        certificates.require(project.root, project.config, binary)
    except EngineFailed as error:
        problems.append(str(error))
    if problems:
        raise ConfigError(str(project.file), problems)
    print_table(_services(project))
    out.print()
    for engine in _engines(project):
        out.print(f"{engine.name:<10} {'external' if isinstance(engine, External) else 'embedded'}")
    out.print(f"haproxy    {escape(str(binary))}")
    out.print(f"gateway    {project.config.gateway.bind}")
    out.print(f"state      {escape(str(project.layout.state))}")
    for warning in _warnings(project):
        err.print(f"[yellow]warning:[/] {warning}")
    out.print(f"\n[green]{escape(str(project.file))} is fine[/]")


def _runs(project: Project) -> bool:
    try:
        Client(project).status(brief=True)
    except EscalaError:
        return False
    return True


def _clashes(project: Project) -> list[str]:
    """Return the tasks of which two services have different ones of the same name."""
    found: dict[str, dict[str, ListedTask]] = {}
    problems = []
    for name, service in project.config.services.items():
        if service.kind != "tasks":
            continue
        found[name] = mine = _tasks(project, name)
        for other, theirs in found.items():
            try:
                require_one_function(mine, theirs, other)
            except TaskClash as error:
                problems.append(f"services.{name}.tasks: {error}")
    return problems


def _tasks(project: Project, name: str) -> dict[str, ListedTask]:
    """Return the tasks of a worker, by name; none if they cannot be listed, which is told elsewhere."""
    try:
        done = _run(_spec(project, name), "--list")
        return msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=dict[str, ListedTask])
    except (EscalaError, subprocess.TimeoutExpired, OSError, IndexError, msgspec.MsgspecError):
        return {}


def _spec(project: Project, name: str) -> ProcessSpec:
    """Return the command of a service's replica."""
    engines = {engine.name: engine.url for engine in _engines(project)}
    environment = environment_for(
        project, postgres=engines["postgres"], valkey=engines["valkey"], service=name, replica=replica_name(name, 1)
    )
    return replica_spec(project, name, 1, NOWHERE, environment)


def _run(spec: ProcessSpec, option: str) -> "subprocess.CompletedProcess[str]":
    """Run the program of a replica with an option after which it ends."""
    return subprocess.run(
        [*spec.argv, option],
        cwd=spec.cwd,
        env=dict(spec.environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=_IMPORT_SECONDS,
    )


def _load(project: Project, name: str, service: ServiceSettings) -> str | None:
    """Import a service's target as its replica would, in a separate process; return the problem, or None."""
    try:
        spec = _spec(project, name)
    except EscalaError as error:
        return str(error)
    if not spec.cwd.is_dir():
        return f"services.{name}.directory: the folder {spec.cwd} does not exist"
    if service.kind == "command":
        program = shlex.split(service.target)[0]
        if shutil.which(program, path=program_path()) or (spec.cwd / program).is_file():
            return None
        return f"services.{name}.command: the program {program!r} was not found"
    try:
        done = _run(spec, "--check")
    except subprocess.TimeoutExpired:
        return f"services.{name}.{service.kind}: importing {service.target} took more than {_IMPORT_SECONDS:g} s"
    if done.returncode == 0:
        return None
    last = (done.stderr.strip().splitlines() or ["it failed without any output"])[-1]
    return f"services.{name}.{service.kind}: {last.removeprefix('error: ')}"


def shadowing(folder: Path) -> list[str]:
    """Return the files and packages in a folder that are named like a module of the standard library.

    If the folder is first on Python's path, any code that imports that module gets them instead.
    """
    names = {path.name for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    return sorted(name for name in names if name.removesuffix(".py") in sys.stdlib_module_names)


def _services(project: Project) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("SERVICE", "REPLICAS", "LISTENS ON", "RUNS", "ROUTES"):
        table.add_column(heading)
    for name, service in project.config.services.items():
        least, most = service.replicas.min, service.replicas.most
        table.add_row(
            name,
            str(least) if least == most else f"{least}–{most}",
            _listens_on(service),
            f"{service.kind} {service.target}",
            ", ".join(
                f"{r.name}{' → ' + r.settings.to if r.settings.to else ''}{' (public)' if r.policy.public else ''}"
                for r in project.topology.routes
                if r.service == name
            )
            or "–",
        )
    return table


def _listens_on(service: ServiceSettings) -> str:
    pinned = ", ".join(map(str, service.ports))
    if len(service.ports) == service.replicas.most:
        return pinned
    others = "Unix sockets" if service.on_socket else "free ports"
    return f"{pinned}, then {others}" if pinned else others


def _engines(project: Project) -> tuple[Engine, Engine]:
    return postgres_engine(project.config, project.layout), valkey_engine(project.config, project.layout)


def _connections(project: Project) -> Iterator[str]:
    """Yield a warning if all replicas together may open more connections than PostgreSQL accepts."""
    wanted, settings = project.config.database_connections, project.config.engines.postgres
    advice = "fewer replicas, a smaller database.pool or a larger max_connections"
    accepted = settings.max_connections
    if settings.url is not None:
        accepted = asyncio.run(max_connections(settings.url))
    if accepted is not None and accepted < wanted:
        yield (
            f"all replicas together may open {wanted} connections to PostgreSQL, which accepts only {accepted}; "
            f"choose {advice}"
        )


def _warnings(project: Project) -> Iterator[str]:
    folders = {project.root / (each.directory or "") for each in project.config.services.values() if not each.command}
    for folder in sorted(folders):
        for name in shadowing(folder):
            module = name.removesuffix(".py")
            shown = escape(str(folder / name))
            yield f"{shown} has the same name as the standard library's {module!r} and replaces it; rename the file"
    yield from _connections(project)
    if _runs(project):  # if it runs, it holds its own ports
        return
    for key, address in project.topology.addresses:
        try:
            ports.require_free(address, key)
        except EscalaError as error:
            yield str(error)
