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
"""Variables that are meant only for the supervisor (sd_notify(3)). Replicas do not inherit them."""

_LISTEN_VARIABLES = {"SOCKET", "PORT", "HOST"}
"""Variables that are set for each replica. A replica without a port of its own must not inherit the supervisor's."""


def replica_name(service: str, number: int) -> str:
    return f"{service}/{number}"


def program_path() -> str:
    """Return the PATH for processes that the supervisor starts. The folder of its own Python comes first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def environment_for(
    project: Project, *, postgres: str, valkey: str, node: str = "", service: str = "", replica: str = ""
) -> dict[str, str]:
    """Return the environment variables of a replica, or of the prepare command.

    They are those that Escala sets, and those inherited from the supervisor.
    """
    own = Environment(
        project=project.name,
        service=service,
        replica=replica,
        node=node,
        postgres=postgres,
        valkey=valkey,
        jwks=str(project.layout.jwks),
        issuer=project.config.issuer,
        audience=project.config.audience,
        public=" ".join(project.topology.public_paths(service)) if service else "",
        cache_entries=str(project.config.cache.entries),
        cache_bytes=f"{project.config.cache.bytes}B",
        cache_value=f"{_largest_value(project)}B",
        cache_compress=f"{project.config.cache.compress}B",
        database_pool=str(project.config.database.pool),
        data=str(project.layout.data),
    )
    inherited = {
        name: value for name, value in os.environ.items() if name not in _SYSTEMD_VARIABLES | _LISTEN_VARIABLES
    }
    return {**inherited, "PATH": program_path(), "PYTHONUNBUFFERED": "1", **own.variables()}


def _largest_value(project: Project) -> int:
    """Return how large a cached value may be: no single one may push all others out of the embedded Valkey."""
    engine, largest = project.config.engines.valkey, project.config.cache.value
    return largest if engine.url else min(largest, engine.memory // 8)


def replica_spec(
    project: Project, service_name: str, number: int, endpoint: Endpoint, environment: Mapping[str, str]
) -> ProcessSpec:
    """Return the command that runs one replica; raise ConfigError if its env_file cannot be read."""
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
    """Return the variables that tell a process where to listen."""
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
        "--stop-timeout": max(0.5, service.stop_timeout - 0.5),  # so that it ends by itself before it is killed
    }
    if service_name != PLATFORM:  # it contains no code of the project
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
    for queue, weight in service.queues.items():
        flags += ["--queue", f"{queue}={weight:g}"]
    if methods:
        flags += ["--methods", *methods]
    words = [str(word) for pair in options.items() for word in pair]
    # -P: the working directory belongs to the project. A queue.py in it must not shadow the standard library's.
    return (sys.executable, "-P", "-m", "escala.replica", service.kind, service.target, *words, *flags)
