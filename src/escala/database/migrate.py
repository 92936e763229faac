"""Migrations of Escala's own tables: SQL files, each applied once, in the order of their names.

A migration has one or two parts. `NNNN_name.sql` adds what the new code needs, and leaves what the earlier version
needs: both run while a fleet is updated. `NNNN_name.post.sql` removes the rest. It is applied a day later at the
earliest, by the next start.
"""

import asyncio
import contextlib
import time
from importlib import resources

import asyncpg

from escala.database.pool import Connection
from escala.errors import EngineFailed

LOCK_SECONDS = 60.0
"""How long this process waits while another one migrates."""
ROLLOUT_SECONDS = 86400.0
"""How long processes of the earlier version may go on after a migration."""
_RETRY_SECONDS = 0.1
_POST = ".post.sql"
_LOCK = 7_305_430_117_462_001  # an arbitrary number, the same in every process, so only one migrates at a time


async def migrate(connection: Connection) -> list[str]:
    """Apply the files of `migrations/` that the database does not have yet, and return their names.

    Each file and its row in `escala.migration` are committed in one transaction. Raises EngineFailed if another process
    holds the lock for more than LOCK_SECONDS.
    """
    folder = resources.files("escala.database") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    files.sort(key=lambda file: file.name.endswith(_POST))
    applied = []
    await _lock(connection)
    try:
        await connection.execute(
            "create schema if not exists escala;"
            "create table if not exists escala.migration"
            " (name text primary key, applied_at timestamptz not null default now())"
        )
        rows = await connection.fetch("select name, extract(epoch from now() - applied_at) age from escala.migration")
        ages = {row["name"]: float(row["age"]) for row in rows}
        for file in files:
            # In a new database no earlier version can be at work.
            first = file.name.replace(_POST, ".sql")
            is_early = bool(ages) and file.name.endswith(_POST) and ages.get(first, 0.0) < ROLLOUT_SECONDS
            if file.name in ages or is_early:
                continue
            async with connection.transaction():
                await connection.execute(file.read_text(encoding="utf-8"))
                await connection.execute("insert into escala.migration (name) values ($1)", file.name)
            applied.append(file.name)
    finally:
        # If unlocking fails, the lock ends with the connection.
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await connection.execute("select pg_advisory_unlock($1)", _LOCK)
    return applied


async def _lock(connection: Connection) -> None:
    """Take the migration lock. Raise EngineFailed if another session holds it for more than LOCK_SECONDS."""
    end = time.monotonic() + LOCK_SECONDS
    while not await connection.fetchval("select pg_try_advisory_lock($1)", _LOCK):
        if time.monotonic() > end:
            raise EngineFailed(
                "PostgreSQL",
                f"another session has been migrating Escala's tables for more than {LOCK_SECONDS:g} s; see pg_locks "
                f"for the holder of advisory lock {_LOCK}",
            )
        await asyncio.sleep(_RETRY_SECONDS)
