"""Revocations in PostgreSQL: the truth that gateways and replicas are brought up to date with."""

import time
from dataclasses import dataclass
from functools import partial

from escala.database.pool import Connection
from escala.database.statements import statement

CHANNEL = "escala_revocation"
"""Whoever listens on it (NOTIFY) is told of each new revocation."""

_sql = partial(statement, "escala.auth")


@dataclass(frozen=True)
class Revoked:
    tokens: frozenset[str]
    """The `jti` of tokens."""
    users: dict[str, int]
    """By `sub`, the second since the epoch at or before which the tokens were issued that are revoked."""


async def read(connection: Connection) -> Revoked:
    """Return all revocations of tokens that have not expired."""
    rows = await connection.fetch(_sql("read_revocations"))
    return Revoked(
        frozenset(str(row["value"]) for row in rows if row["kind"] == "token"),
        {str(row["value"]): int(row["since"]) for row in rows if row["kind"] == "user"},
    )


async def write(connection: Connection, kind: str, value: str, expires_at: float) -> None:
    """Store a revocation of a token (by its `jti`) or of all tokens of a user."""
    await connection.execute(_sql("revoke"), kind, value, expires_at, time.time())


async def notify(connection: Connection) -> None:
    await connection.execute(f"notify {CHANNEL}")


async def forget_expired(connection: Connection) -> None:
    await connection.execute(_sql("forget_revocations"))
