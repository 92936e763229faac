"""Fixtures of an empty queue, and workers without a process."""

import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from escala import database
from escala.database import Connection, Database
from escala.database.migrate import migrate
from escala.tasks.store import workers


@pytest.fixture
async def empty_queue(postgres_url: str) -> str:
    """The URL of a database with Escala's tables, without any job."""
    connection = await asyncpg.connect(postgres_url)
    await migrate(connection)
    await connection.execute(
        "truncate escala.job, escala.job_step, escala.worker, escala.paused_queue, escala.job_limit, escala.unique_job,"
        " escala.cron; truncate escala.finished_job cascade"
    )
    await connection.close()
    return postgres_url


@pytest.fixture
async def pool(empty_queue: str) -> AsyncIterator[Database]:
    made = Database(empty_queue)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def connected(pool: Database) -> AsyncIterator[Database]:
    """The pool, which `Task.enqueue` uses meanwhile."""
    database.slot.fill(pool)
    yield pool
    database.slot.empty()


@pytest.fixture
async def connection(pool: Database) -> AsyncIterator[Connection]:
    async with pool.connection() as lent:
        yield lent


async def new_worker(connection: Connection, replica: str = "worker/1", pid: int = 1) -> uuid.UUID:
    """Register a worker, and return its owner."""
    owner = uuid.uuid4()
    await workers.register(connection, owner, node="here", pid=pid, replica=replica, queues=["q"])
    return owner
