"""A replica: one process of a service, with a socket or a port of its own."""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from escala.config import PLATFORM, Config, Endpoint, Service, UnixSocket
from escala.environment import Environment, is_under
from escala.errors import EscalaError
from escala.process import ProcessSpec
from escala.project import Project

_OF_SYSTEMD = {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"}
"""What is for the supervisor alone (sd_notify(3))."""

_WHERE_TO_LISTEN = {"SOCKET", "PORT", "HOST"}
"""What a replica is told anew; one that has no port of its own must not find the supervisor's."""

PLATFORM_SERVICE = Service(app="escala.services.platform:app")


def services(config: Config) -> dict[str, Service]:
    """Return all services, the built-in one among them."""
    return {**config.services, PLATFORM: PLATFORM_SERVICE}


def replica_name(service: str, number: int) -> str:
    return f"{service}/{number}"


def program_path() -> str:
    """Return the PATH of what the supervisor starts: programs beside its own Python come first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def public_paths(config: Config, service: str) -> list[str]:
    """Return the prefixes that need no token, and with "!" those below them that do, as the service sees them."""
    prefixes = [
        ("" if config.policy(name, route).public else "!") + (route.to or route.path)
        for name, each in config.services.items()
        for route in each.routes
        if name == service or (route.split is not None and route.split.service == service)
    ]
    health = services(config)[service].health
    if health != "tcp":
        prefixes.insert(0, health)
    # Others with "!" say nothing, and each is a change of the environment: a reason to roll the service out anew.
    public = [prefix for prefix in prefixes if not prefix.startswith("!")]
    return [prefix for prefix in prefixes if any(is_under(prefix.removeprefix("!"), each) for each in public)]


def environment_for(
    project: Project, *, postgres: str, valkey: str, service: str = "", replica: str = ""
) -> dict[str, str]:
    """Return the variables of a replica, or of the prepare command: ours, and those that the supervisor has."""
    told = Environment(
        project=project.name,
        service=service,
        replica=replica,
        postgres=postgres,
        valkey=valkey,
        jwks=str(project.layout.jwks),
        issuer=project.config.issuer,
        audience=project.config.audience,
        public=" ".join(public_paths(project.config, service)) if service else "",
        cache_entries=str(project.config.cache.entries),
        data=str(project.layout.data),
    )
    inherited = {name: value for name, value in os.environ.items() if name not in _OF_SYSTEMD | _WHERE_TO_LISTEN}
    return {**inherited, "PATH": program_path(), "PYTHONUNBUFFERED": "1", **told.variables()}


def replica_spec(
    project: Project, service_name: str, number: int, endpoint: Endpoint, environment: Mapping[str, str]
) -> ProcessSpec:
    """Return what to run for one replica; raise EscalaError where its file of variables cannot be read."""
    service = services(project.config)[service_name]
    directory = project.root / (service.directory or "")
    listens = _variables(endpoint)
    if service.kind == "command":
        argv = service.words(listens)
    else:
        argv = _python_argv(directory, service, project.config.max_body(service_name), endpoint)
    processors = sorted(os.sched_getaffinity(0)) if service.affinity and hasattr(os, "sched_getaffinity") else []
    return ProcessSpec(
        name=replica_name(service_name, number),
        argv=argv,
        cwd=directory,
        environment={
            **environment,
            **_env_file(project, service_name, service),
            **service.environment,
            **listens,
        },
        stop_timeout=service.stop_timeout,
        open_files=service.open_files,
        processor=processors[(number - 1) % len(processors)] if processors else None,
    )


def _variables(endpoint: Endpoint) -> dict[str, str]:
    """Return what tells a process where to listen."""
    if isinstance(endpoint, UnixSocket):
        return {"SOCKET": endpoint.path}
    return {"HOST": endpoint.host, "PORT": str(endpoint.port)}


def _env_file(project: Project, service_name: str, service: Service) -> dict[str, str]:
    if service.env_file is None:
        return {}
    path = project.root / service.env_file
    try:
        with path.open(encoding="utf-8") as file:
            found = dotenv_values(stream=file, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise EscalaError(f"services.{service_name}.env_file: {path}: {reason}") from None
    return {name: value for name, value in found.items() if value is not None}


def _python_argv(directory: Path, service: Service, max_body: int, endpoint: Endpoint) -> tuple[str, ...]:
    options = {
        "--root": directory,
        **{f"--{name.lower()}": value for name, value in _variables(endpoint).items()},
        "--max-body": max_body,
        "--stop-timeout": max(0.5, service.stop_timeout - 0.5),  # to end by itself before it is killed
        "--concurrency": service.concurrency,
    }
    flags = [*(["--access-log"] if service.access_log else []), *(["--factory"] if service.factory else [])]
    if service.interface != "auto":
        flags += ["--interface", service.interface]
    words = [str(word) for pair in options.items() for word in pair]
    return (sys.executable, "-m", "escala.replica", service.kind, service.target, *words, *flags)


async def probe(endpoint: Endpoint, health: str) -> None:
    """Return when the replica says that it is well; raise OSError while it does not.

    Well is a status below 400, or 404 from an app that has no such page: the same rule as the gateway's checks. With
    health "tcp" a connection is enough.
    """
    async with asyncio.timeout(2):
        if isinstance(endpoint, UnixSocket):
            reader, writer = await asyncio.open_unix_connection(endpoint.path)
        else:
            reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
        try:
            if health == "tcp":
                return
            fields = "Host: localhost\r\nX-Forwarded-For: 127.0.0.1\r\nConnection: close\r\n"
            writer.write(f"GET {health} HTTP/1.1\r\n{fields}\r\n".encode())
            status = (await reader.readline()).split()
        finally:
            writer.close()
    if len(status) < 2 or not (status[1][:1] in b"23" or status[1] == b"404"):
        raise ConnectionError("not well yet")
