"""The command line: one module a command."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from escala._version import __version__
from escala.cli.apply import apply
from escala.cli.cert import cert
from escala.cli.check import check
from escala.cli.console import complain, out
from escala.cli.demo import demo
from escala.cli.deploy import deploy
from escala.cli.dev import dev
from escala.cli.down import down
from escala.cli.drain import drain
from escala.cli.init import init
from escala.cli.keys import keys
from escala.cli.logs import logs
from escala.cli.restart import restart
from escala.cli.revoke import revoke
from escala.cli.routes import routes
from escala.cli.scale import scale
from escala.cli.status import status
from escala.cli.systemd import systemd
from escala.cli.token import token
from escala.cli.top import top
from escala.cli.up import up
from escala.errors import ConfigError, EscalaError

app = typer.Typer(
    name="escala",
    help="Scale a Python backend horizontally: one file, one command, real engines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
COMMANDS = (
    *(init, dev, up, down, status, top, logs, routes),
    *(scale, drain, restart, deploy, apply),
    *(check, token, revoke, cert, systemd, demo),
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(keys)


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


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
        app()
    except EscalaError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
