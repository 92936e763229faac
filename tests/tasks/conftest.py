from collections.abc import AsyncIterator

import asyncpg
import pytest

from escala.database import Connection, Database
from escala.database.migrate import migrate


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Database]:
    """An empty queue."""
    connection = await asyncpg.connect(postgres_url)
    await migrate(connection)
    await connection.execute("truncate escala.job; truncate escala.finished_job cascade")
    await connection.close()
    made = Database(postgres_url)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def connection(pool: Database) -> AsyncIterator[Connection]:
    async with pool.connection() as lent:
        yield lent
