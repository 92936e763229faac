"""The leases of worker processes, and the rescue of the jobs of those that died."""

import uuid
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from escala.database import Connection
from escala.database.statements import statement
from escala.tasks.listing import ListedTask, require_one_function

LEASE_SECONDS = 10.0
MOST_CRASHES = 3
"""A job that ended so many processes which ran nothing else is set aside as failed."""


class Rescued(NamedTuple):
    again: list[uuid.UUID]
    """These will be tried again."""
    poison: list[uuid.UUID]
    """These were set aside."""


def _sql(name: str) -> str:
    return statement("escala.tasks", name)


async def register(
    connection: Connection,
    owner: uuid.UUID,
    *,
    node: str,
    pid: int,
    replica: str,
    queues: Sequence[str],
    tasks: Mapping[str, ListedTask] = MappingProxyType({}),
) -> None:
    """Begin a lease. Raises TaskClash if a living worker of another service has another task of the same name."""
    service = replica.partition("/")[0]
    for other, theirs in await connection.fetch(_sql("others"), service):
        require_one_function(tasks, msgspec.json.decode(theirs, type=dict[str, ListedTask]), other)
    text = msgspec.json.encode(dict(tasks)).decode()
    await connection.execute(_sql("register"), owner, LEASE_SECONDS, node, pid, replica, queues, text)


async def renew(connection: Connection, owner: uuid.UUID) -> bool:
    """Extend the lease of a worker. Return False if it has ended: then its jobs are not its own any more."""
    return await connection.fetchval(_sql("renew"), owner, LEASE_SECONDS) is not None


async def deregister(connection: Connection, owner: uuid.UUID) -> None:
    """End a lease well. What the worker still has, whatever the reason, waits again."""
    async with connection.transaction():
        await connection.execute(_sql("deregister"), owner)
        await connection.fetch(_sql("let_go"), owner, [])


async def rescue_expired(connection: Connection) -> Rescued:
    """Take back the jobs of workers whose leases have run out."""
    async with connection.transaction():
        # Two statements: the second one sees what a worker claimed before its lease was ended.
        owners = [row[0] for row in await connection.fetch(_sql("end_expired"))]
        return await _rescue(connection, owners)


async def rescue_dead(connection: Connection, node: str, pid: int) -> Rescued:
    """Take back the jobs of a worker process whose death was seen."""
    async with connection.transaction():
        owners = [row[0] for row in await connection.fetch(_sql("end_dead"), node, pid)]
        return await _rescue(connection, owners)


async def _rescue(connection: Connection, owners: Sequence[uuid.UUID]) -> Rescued:
    if not owners:
        return Rescued([], [])
    rows = await connection.fetch(_sql("rescue"), owners, MOST_CRASHES)
    return Rescued([row[0] for row in rows if row[1]], [row[0] for row in rows if not row[1]])
