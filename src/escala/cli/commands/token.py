"""The command `escala token`."""

import getpass
import shlex
from typing import Annotated

import typer

from escala.auth.key_store import KeyStore
from escala.auth.tokens import Issuer
from escala.cli.support.console import out
from escala.cli.support.options import File, Settings, open_project
from escala.errors import ConfigError
from escala.gateway.topology.topology import Topology
from escala.project.project import Project
from escala.units import parse_duration

User = Annotated[
    str | None, typer.Option("--user", "-u", metavar="NAME", help="The user the token is for. Default: you.")
]
Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope", "-s", metavar="SCOPE", help="A scope it has. May be repeated. Default: all that routes name."
    ),
]
Ttl = Annotated[
    str | None,
    typer.Option("--ttl", metavar="DURATION", help='How long it is valid, such as "15m". Default: auth.access_ttl.'),
]
Curl = Annotated[bool, typer.Option("--curl", help="Print a complete curl command instead.")]
Path = Annotated[str | None, typer.Option("--path", metavar="PATH", help="The path in the curl command.")]


def token(
    file: File = None,
    settings: Settings = None,
    user: User = None,
    scope: Scopes = None,
    ttl: Ttl = None,
    curl: Curl = False,
    path: Path = None,
) -> None:
    """Print a valid access token. Whoever can read the project's signing key can do this."""
    project = open_project(file, settings)
    made = issue(project, user or getpass.getuser(), scope, ttl)
    if curl:
        url = f"{project.config.gateway.url}/{(path or _first_path(project.topology)).lstrip('/')}"
        made = f"curl -i -H {shlex.quote(f'Authorization: Bearer {made}')} {shlex.quote(url)}"
    out.print(made, markup=False)


def issue(project: Project, user: str, scopes: list[str] | None = None, ttl: str | None = None) -> str:
    """Return an access token of the project."""
    config = project.config
    try:
        seconds = parse_duration(ttl) if ttl else config.auth.access_ttl
        if seconds < 1:
            raise ValueError("it is too short; a token must be valid for at least 1s")
    except ValueError as error:
        raise ConfigError("--ttl", [str(error)]) from None
    granted = [word for text in scopes for word in text.split()] if scopes else list(project.topology.scopes)
    return Issuer(KeyStore(project.layout).signing_key(), config.issuer, config.audience).issue(user, granted, seconds)


def _first_path(topology: Topology) -> str:
    """Return the path of a route that needs a token; "/" if there is none."""
    own = [route for route in topology.routes if route.service in topology.config.services]
    needs_token = [route.settings.path for route in own if not route.policy.public]
    return next(iter(needs_token), "/")
