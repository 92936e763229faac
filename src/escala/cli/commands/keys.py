"""The commands `escala keys ...`."""

import contextlib
from typing import Annotated

import typer

from escala.auth.key_store import KeyStore
from escala.cli.support.console import out
from escala.cli.support.options import File, Settings, open_project
from escala.control.client import Client
from escala.control.messages import Reload
from escala.errors import NotRunning
from escala.project.project import Project

_SECONDS = 60.0

keys = typer.Typer(name="keys", help="The keys that sign and verify tokens.", no_args_is_help=True)

Kid = Annotated[str, typer.Argument(metavar="KID", help="The key's id, as `escala keys list` shows it.")]


@keys.command("list")
def list_keys(file: File = None, settings: Settings = None) -> None:
    """List the keys. The first one signs new tokens."""
    for number, key in enumerate(KeyStore(open_project(file, settings).layout).public_keys()):
        out.print(f"{key.kid}  {key.algorithm}  {'signs and verifies' if number == 0 else 'verifies'}", markup=False)


@keys.command()
def rotate(file: File = None, settings: Settings = None) -> None:
    """Sign with a new key from now on. Tokens signed with the old key stay valid until it is retired."""
    project = open_project(file, settings)
    store = KeyStore(project.layout)
    fresh = store.prepare_rotation()
    _reload(project)  # the gateway must know the new key before a token is signed with it
    store.finish_rotation()
    out.print(f"{fresh} signs from now on", markup=False)


@keys.command(context_settings={"ignore_unknown_options": True})  # a key's id may begin with a dash
def retire(kid: Kid, file: File = None, settings: Settings = None) -> None:
    """Remove a key that no longer signs. Its tokens are refused from now on."""
    project = open_project(file, settings)
    KeyStore(project.layout).retire(kid)
    _reload(project)
    out.print(f"tokens signed with {kid} are refused from now on", markup=False)


def _reload(project: Project) -> None:
    with contextlib.suppress(NotRunning):  # a project that does not run reads the keys when it starts
        client = Client(project)
        client.follow(client.begin(Reload("keys")), _SECONDS)
