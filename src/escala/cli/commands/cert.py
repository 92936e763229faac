"""The command `escala cert`."""

from pathlib import Path
from typing import Annotated

import typer

from escala.cli.support.console import out
from escala.errors import EscalaError
from escala.gateway.haproxy.self_signed import self_signed
from escala.project.atomic_write import write_atomically

Hosts = Annotated[
    list[str] | None, typer.Argument(metavar="[HOST...]", help="Names and addresses it is for. Default: localhost.")
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="PATH", help="The file to write.")]
Days = Annotated[int, typer.Option(help="How many days it is valid.", min=1, max=3650)]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]


def cert(hosts: Hosts = None, path: Out = Path("certs/dev.pem"), days: Days = 90, force: Force = False) -> None:
    """Create a self-signed certificate for development. Browsers warn about it, because no authority has signed it."""
    if path.exists() and not force:
        raise EscalaError(f"{path} already exists; use --force to replace it")
    names = hosts or ["localhost", "127.0.0.1", "::1"]
    try:
        content = self_signed(names, days)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except ValueError as error:
        raise EscalaError(str(error)) from None
    except OSError as error:
        raise EscalaError(f"{path}: {error.strerror}") from None
    out.print(f"{path}: for {', '.join(names)}, valid for {days} days (certificate and key, mode 0600)")
    out.print(f'\n[gateway.tls]\ncertificates = "{path}"', markup=False)
