"""What has to be done in time: scheduled jobs become due, and finished ones old."""

from escala.database import Connection
from escala.database.statements import statement

STAGED_AT_ONCE = 1000
PRUNED_AT_ONCE = 5000


async def stage(connection: Connection) -> bool:
    """Let scheduled jobs wait that are due; return whether there may be more."""
    status = await connection.fetch(statement("escala.tasks", "stage"), STAGED_AT_ONCE)
    return bool(status)


async def next_due(connection: Connection) -> float | None:
    """Return the seconds until the next scheduled job is due; None if there is none."""
    seconds: float | None = await connection.fetchval(statement("escala.tasks", "next_due"))
    return seconds


async def prune(connection: Connection) -> bool:
    """Delete what is over: finished jobs, keys, steps. Return whether there may be more of the jobs."""
    await connection.execute(statement("escala.tasks", "prune_unique"), PRUNED_AT_ONCE)
    await connection.execute(statement("escala.tasks", "prune_steps"))
    return len(await connection.fetch(statement("escala.tasks", "prune"), PRUNED_AT_ONCE)) == PRUNED_AT_ONCE
