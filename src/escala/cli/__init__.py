"""The command line: one module a command."""

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
    *("check", "token", "revoke", "cert", "systemd", "demo", "keys"),
)
"""Each is a function, or an application of its own, of the module of its name."""


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
    """Return the application for a command line: with the command that it begins with alone, or else with all.

    To import all of Escala takes longer than most commands do.
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
    """Raise ConfigError where the command line is not UTF-8: what is sent, signed and written down is."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ConfigError("an argument", [f"{word!r} is not text (UTF-8)"]) from None


def main() -> None:
    """Run the command line; an EscalaError is one line and its class's exit code."""
    try:
        _require_text(sys.argv[1:])
        application(sys.argv[1:])()
    except EscalaError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
