"""A replica: one process of a service, with a socket or a port of its own."""

import asyncio
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from dotenv import dotenv_values

from escala.config import PLATFORM, Config, Endpoint, ServiceSettings, UnixSocket
from escala.environment import Environment, is_under
from escala.errors import EscalaError
from escala.http.internal_headers import CHECK, THREADS
from escala.processes.process import ProcessSpec
from escala.project.project import Project

_OF_SYSTEMD = {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"}
"""What is for the supervisor alone (sd_notify(3))."""

_WHERE_TO_LISTEN = {"SOCKET", "PORT", "HOST"}
"""What a replica is told anew; one that has no port of its own must not find the supervisor's."""

PLATFORM_SERVICE = ServiceSettings(app="escala.services.platform:app")


def services(config: Config) -> dict[str, ServiceSettings]:
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
    health = services(config)[service].health or "/health"
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
        argv = _python_argv(project.config, directory, service_name, service, endpoint)
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
        raise EscalaError(f"services.{service_name}.env_file: {path}: {reason}") from None
    return {name: value for name, value in found.items() if value is not None}


def _python_argv(
    config: Config, directory: Path, service_name: str, service: ServiceSettings, endpoint: Endpoint
) -> tuple[str, ...]:
    options: dict[str, object] = {
        **{f"--{name.lower()}": value for name, value in _variables(endpoint).items()},
        "--max-body": config.max_body(service_name),
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
    methods = config.methods(service_name)
    if methods:
        flags += ["--methods", *methods]
    words = [str(word) for pair in options.items() for word in pair]
    # -P: the working directory is the project's, whose queue.py must not stand in for the standard library's.
    return (sys.executable, "-P", "-m", "escala.replica", service.kind, service.target, *words, *flags)


Answer = Literal["well", "unwell", "silent"]
"""silent: it took the question, or would have, and said nothing in time."""

_PATIENCE = 2.0
_LONGEST_ANSWER = 64 * 1024


async def ask(endpoint: Endpoint, page: str | None, name: str) -> Answer:
    """Ask a replica whether it is well."""
    try:
        await probe(endpoint, page, name)
    except TimeoutError:
        return "silent"
    except OSError:
        return "unwell"
    return "well"


async def probe(endpoint: Endpoint, page: str | None, name: str) -> int | None:
    """Return when the replica says that it is well; raise OSError while it does not, TimeoutError where it is silent.

    Well is a status below 400, or 404 from an app that has no such page. With the page "tcp" a connection is enough.
    What is returned is how many requests it can work on at a time, where it says so.
    """
    async with asyncio.timeout(_PATIENCE):
        head = await _head_of_answer(endpoint, page, name)
    if head is None:
        return None
    status, *fields_read = head.decode("latin-1").split("\r\n")
    code = status.partition(" ")[2][:3]
    if code[:1] not in ("2", "3") and code != "404":
        raise ConnectionError("not well yet")
    for field in fields_read:
        key, _, value = field.partition(":")
        if key.lower() == THREADS.lower() and value.strip().isdigit():
            return int(value)
    return None


async def _head_of_answer(endpoint: Endpoint, page: str | None, name: str) -> bytes | None:
    """Ask, and return the answer's head; None where a connection is all that is wanted.

    On a bare socket: asyncio's streams cost several times as much, for each replica and second.
    """
    loop = asyncio.get_running_loop()
    family = socket.AF_UNIX if isinstance(endpoint, UnixSocket) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        if isinstance(endpoint, UnixSocket):
            try:
                connection.connect(endpoint.path)  # done at once, or not at all (unix(7))
            except BlockingIOError:  # its backlog is full: whoever has so many waiting is silent, not gone
                raise TimeoutError("the backlog of its socket is full") from None
        else:
            await loop.sock_connect(connection, tuple(endpoint))
        if page == "tcp":
            return None
        # Over a Unix socket a client has no address, and an app that looks at it would not be well.
        fields = f"Host: localhost\r\nX-Forwarded-For: 127.0.0.1\r\n{CHECK}: {name}\r\nConnection: close\r\n"
        await loop.sock_sendall(connection, f"GET {page or '/'} HTTP/1.1\r\n{fields}\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = await loop.sock_recv(connection, 64 * 1024)
            if not piece or len(head) > _LONGEST_ANSWER:
                raise ConnectionError("no answer in HTTP")
            head += piece
        return head
