"""The command line: one module per command."""

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from escala._version import __version__
from escala.cli.support.console import complain, out
from escala.errors import ConfigError, EscalaError

COMMANDS = (
    *("init", "dev", "up", "down", "status", "top", "logs", "routes"),
    *("scale", "drain", "restart", "deploy", "apply"),
    *("check", "token", "revoke", "cert", "systemd", "demo", "keys", "cache", "jobs"),
)
"""The module with a command's name contains a function or a Typer application of the same name."""


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def application(words: Sequence[str]) -> typer.Typer:
    """Return the application for a command line.

    If the command line begins with a command, only that command is loaded; otherwise all are. Importing all of Escala
    takes longer than most commands do.
    """
    app = typer.Typer(
        name="escala",
        help="Scale a Python backend horizontally: one file, one command, real engines.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(_root)
    named = [word for word in words[:1] if word in COMMANDS]
    for name in named or COMMANDS:
        command = getattr(importlib.import_module(f"escala.cli.commands.{name}"), name)
        if isinstance(command, typer.Typer):
            app.add_typer(command)
        else:
            app.command()(command)
    return app


def _require_text(words: Sequence[str]) -> None:
    """Raise ConfigError if the command line is not valid UTF-8. All that is sent, signed and stored must be UTF-8."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ConfigError("an argument", [f"{word!r} is not valid UTF-8"]) from None


def main() -> None:
    """Run the command line. Print an EscalaError as a message, and exit with the code of its class."""
    try:
        _require_text(sys.argv[1:])
        application(sys.argv[1:])()
    except EscalaError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
