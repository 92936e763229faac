"""The command `escala revoke`."""

from typing import Annotated

import typer

from escala.auth.tokens import MAX_TOKEN, read_unverified
from escala.cli.support.console import out
from escala.cli.support.options import File, Settings, open_project
from escala.control.client import Client
from escala.control.messages import Revoke
from escala.errors import ConfigError, InvalidToken

_SECONDS = 60.0

Token = Annotated[
    str | None, typer.Option("--token", metavar="TOKEN", help='One token; "-" reads it from standard input.')
]
Id = Annotated[str | None, typer.Option("--id", metavar="JTI", help="One token, by its id (the claim jti).")]
User = Annotated[
    str | None, typer.Option("--user", metavar="NAME", help="All tokens that a user (the claim sub) has now.")
]


def revoke(
    file: File = None, settings: Settings = None, token: Token = None, token_id: Id = None, user: User = None
) -> None:
    """Revoke a token, or all tokens that a user has now. They are refused from now on, also after a restart."""
    given = [name for name, value in (("--token", token), ("--id", token_id), ("--user", user)) if value]
    if len(given) != 1:
        raise ConfigError("escala revoke", ["expected exactly one of --token, --id and --user"])
    client = Client(open_project(file, settings))
    if user:
        client.follow(client.begin(Revoke("user", user, None)), _SECONDS)
        out.print(f"all current tokens of {user} are refused from now on; new tokens are valid", markup=False)
        return
    expires_at: float | None = None
    if token:
        text = typer.get_text_stream("stdin").read(MAX_TOKEN + 1).strip() if token == "-" else token  # noqa: S105
        try:
            token_id, expires_at = read_unverified(text)
        except InvalidToken as error:
            raise ConfigError("--token", [str(error)]) from None
    assert token_id
    client.follow(client.begin(Revoke("token", token_id, expires_at)), _SECONDS)
    out.print(f"the token {token_id} is refused from now on", markup=False)
