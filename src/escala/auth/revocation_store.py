"""Revocations in PostgreSQL: the authoritative list, from which the gateways are updated."""

import time
from dataclasses import dataclass
from functools import partial

from escala.database.pool import Connection
from escala.database.statements import statement

CHANNEL = "escala_revocation"
"""The channel (LISTEN, NOTIFY) on which each new revocation is announced."""

_sql = partial(statement, "escala.auth")


@dataclass(frozen=True)
class Revoked:
    tokens: frozenset[str]
    """The `jti` of each revoked token."""
    users: dict[str, int]
    """For each user (`sub`) the time of the revocation, in seconds since the epoch.

    The user's tokens that were issued at or before that second are revoked.
    """


async def read(connection: Connection) -> Revoked:
    """Return all revocations of tokens that have not expired."""
    rows = await connection.fetch(_sql("read_revocations"))
    return Revoked(
        frozenset(str(row["value"]) for row in rows if row["kind"] == "token"),
        {str(row["value"]): int(row["since"]) for row in rows if row["kind"] == "user"},
    )


async def write(connection: Connection, kind: str, value: str, expires_at: float) -> None:
    """Store the revocation of one token or of all tokens of a user.

    `kind` is "token" or "user"; `value` is the token's `jti` or the user's `sub`. `expires_at`, in seconds since the
    epoch, is when the last token concerned expires.
    """
    await connection.execute(_sql("revoke"), kind, value, expires_at, time.time())


async def notify(connection: Connection) -> None:
    await connection.execute(f"notify {CHANNEL}")


async def forget_expired(connection: Connection) -> None:
    await connection.execute(_sql("forget_revocations"))
