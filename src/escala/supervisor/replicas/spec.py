"""What to run for a replica: its command, environment and limits."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from escala.config import PLATFORM, Endpoint, ServiceSettings, UnixSocket
from escala.environment import Environment
from escala.errors import ConfigError
from escala.gateway.topology.topology import Topology
from escala.processes.process import ProcessSpec
from escala.project.project import Project

_SYSTEMD_VARIABLES = {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"}
"""What is for the supervisor alone (sd_notify(3))."""

_LISTEN_VARIABLES = {"SOCKET", "PORT", "HOST"}
"""What a replica is told anew; one that has no port of its own must not find the supervisor's."""


def replica_name(service: str, number: int) -> str:
    return f"{service}/{number}"


def program_path() -> str:
    """Return the PATH of what the supervisor starts: programs beside its own Python come first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def environment_for(
    project: Project, *, postgres: str, valkey: str, service: str = "", replica: str = ""
) -> dict[str, str]:
    """Return the variables of a replica, or of the prepare command: ours, and those that the supervisor has."""
    own = Environment(
        project=project.name,
        service=service,
        replica=replica,
        postgres=postgres,
        valkey=valkey,
        jwks=str(project.layout.jwks),
        issuer=project.config.issuer,
        audience=project.config.audience,
        public=" ".join(project.topology.public_paths(service)) if service else "",
        cache_entries=str(project.config.cache.entries),
        database_pool=str(project.config.database.pool),
        data=str(project.layout.data),
    )
    inherited = {
        name: value for name, value in os.environ.items() if name not in _SYSTEMD_VARIABLES | _LISTEN_VARIABLES
    }
    return {**inherited, "PATH": program_path(), "PYTHONUNBUFFERED": "1", **own.variables()}


def replica_spec(
    project: Project, service_name: str, number: int, endpoint: Endpoint, environment: Mapping[str, str]
) -> ProcessSpec:
    """Return what to run for one replica; raise ConfigError where its file of variables cannot be read."""
    service = project.topology.services[service_name]
    directory = project.root / (service.directory or "")
    listens = _variables(endpoint)
    if service.kind == "command":
        argv = service.words(listens)
    else:
        argv = _python_argv(project.topology, directory, service_name, endpoint)
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


def _env_file(project: Project, service_name: str, service: ServiceSettings) -> dict[str, str]:
    if service.env_file is None:
        return {}
    path = project.root / service.env_file
    try:
        with path.open(encoding="utf-8") as file:
            found = dotenv_values(stream=file, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(str(project.file), [f"services.{service_name}.env_file: {path}: {reason}"]) from None
    return {name: value for name, value in found.items() if value is not None}


def _python_argv(topology: Topology, directory: Path, service_name: str, endpoint: Endpoint) -> tuple[str, ...]:
    service = topology.services[service_name]
    options: dict[str, object] = {
        **{f"--{name.lower()}": value for name, value in _variables(endpoint).items()},
        "--max-body": topology.max_body(service_name),
        "--stop-timeout": max(0.5, service.stop_timeout - 0.5),  # to end by itself before it is killed
    }
    if service_name != PLATFORM:  # which has nothing of the project's
        options["--root"] = directory
    if service.kind == "tasks":
        options["--concurrency"] = service.concurrency
    if service.kind == "app":
        options["--threads"] = service.threads
    if service.page not in (None, "tcp"):
        options["--health"] = service.page
    if service.interface != "auto":
        options["--interface"] = service.interface
    flags = [*(["--access-log"] if service.access_log else []), *(["--factory"] if service.factory else [])]
    methods = topology.unusual_methods(service_name)
    if methods:
        flags += ["--methods", *methods]
    words = [str(word) for pair in options.items() for word in pair]
    # -P: the working directory is the project's, whose queue.py must not stand in for the standard library's.
    return (sys.executable, "-P", "-m", "escala.replica", service.kind, service.target, *words, *flags)
