"""Migrations of Escala's own tables: SQL files, each applied once, in the order of their names."""

import asyncio
import contextlib
import time
from importlib import resources

import asyncpg

from escala.database.pool import Connection
from escala.errors import EngineFailed

LOCK_SECONDS = 60.0
"""How long this process waits while another one migrates."""
_RETRY_SECONDS = 0.1
_LOCK = 7_305_430_117_462_001  # an arbitrary number, the same in every process, so only one migrates at a time


async def migrate(connection: Connection) -> list[str]:
    """Apply the files of `migrations/` that the database does not have yet, and return their names.

    Each file and its row in `escala.migration` are committed in one transaction. Raises EngineFailed if another process
    holds the lock for more than LOCK_SECONDS.
    """
    folder = resources.files("escala.database") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    applied = []
    await _lock(connection)
    try:
        await connection.execute(
            "create schema if not exists escala;"
            "create table if not exists escala.migration"
            " (name text primary key, applied_at timestamptz not null default now())"
        )
        done = {row["name"] for row in await connection.fetch("select name from escala.migration")}
        for file in files:
            if file.name in done:
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
