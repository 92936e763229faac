"""Admission: how many jobs of a key run at a time, and how often those of a task begin."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from escala.database import Connection
from escala.database.statements import statement
from escala.tasks.store.attempts import Claimed


def _sql(name: str) -> str:
    return statement("escala.tasks", name)


async def admit(connection: Connection, owner: uuid.UUID, key: str, jobs: Sequence[Claimed]) -> set[uuid.UUID]:
    """Admit claimed jobs of one key, as many as may run; block the others. Return the admitted ones."""
    async with connection.transaction():
        # The key stays locked: whoever lets a blocked job go on sees which were blocked before.
        await connection.fetchrow(_sql("lock_limit"), key)
        rows = await connection.fetch(_sql("admit"), owner, key, [job.id for job in jobs])
    return {row[0] for row in rows if row[0] is not None}


async def take_turns(
    connection: Connection, owner: uuid.UUID, task: str, rate: tuple[int, float], jobs: Sequence[Claimed]
) -> set[uuid.UUID]:
    """Let jobs of a task with a rate begin, as many as may; schedule each other one for its turn.

    The rule is the generic cell rate algorithm: after a pause, `count` jobs may begin at once; then one in
    `seconds / count`. Return those that may begin.
    """
    count, seconds = rate
    step = timedelta(seconds=seconds / count)
    allowance = step * (count - 1)
    async with connection.transaction():
        now, used_up = await _locked(connection, f"rate:{task}")
        used_up = max(used_up, now)
        begin: set[uuid.UUID] = set()
        later: list[tuple[uuid.UUID, datetime]] = []
        for job in jobs:
            turn = used_up - allowance
            used_up += step
            if turn <= now:
                begin.add(job.id)
            else:
                later.append((job.id, turn))
        await connection.execute(_sql("set_turn"), f"rate:{task}", used_up)
        if later:
            await connection.execute(_sql("postpone"), owner, *map(list, zip(*later, strict=True)))
    return begin


async def _locked(connection: Connection, key: str) -> tuple[datetime, datetime]:
    row = await connection.fetchrow(_sql("lock_limit"), key)
    assert row is not None
    return row["now"], row["next_turn"]


async def unblock(connection: Connection, key: str) -> None:
    """Let blocked jobs of a key wait for a worker again, as many as may run."""
    async with connection.transaction():
        await connection.fetchrow(_sql("lock_limit"), key)
        await connection.execute(_sql("unblock"), key)


async def blocked_keys(connection: Connection) -> list[str]:
    """Return the keys of which jobs are blocked."""
    return [row[0] for row in await connection.fetch(_sql("blocked_keys"))]
