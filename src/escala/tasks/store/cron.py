"""The ticks of tasks with a cron: each makes one job, whichever worker sees it first."""

from datetime import datetime

from escala.database import Connection
from escala.database.statements import statement
from escala.tasks.enqueuing import insert
from escala.tasks.order import NewJob


async def last_tick(connection: Connection, task: str) -> tuple[datetime, datetime | None]:
    """Return the moment of the database, and the latest tick of a task; None if it is new."""
    row = await connection.fetchrow(statement("escala.tasks", "last_tick"), task)
    assert row is not None
    return row[0], row[1]


async def tick(connection: Connection, task: str, moment: datetime, job: NewJob | None) -> bool:
    """Note a tick and make its job, in one transaction; return False if another worker did so."""
    async with connection.transaction():
        if await connection.fetchval(statement("escala.tasks", "tick"), task, moment) is None:
            return False
        if job is not None:
            await insert(connection, [job])
    return True
