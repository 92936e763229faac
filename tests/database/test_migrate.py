import asyncio

import asyncpg

from escala.database.migrate import migrate


async def fresh_database(url: str, name: str) -> str:
    connection = await asyncpg.connect(url)
    await connection.execute(f"drop database if exists {name}")
    await connection.execute(f"create database {name}")
    await connection.close()
    return url.replace("/postgres?", f"/{name}?")


async def test_each_file_once(postgres_url: str) -> None:
    url = await fresh_database(postgres_url, "migrating")
    connection = await asyncpg.connect(url)
    assert await migrate(connection) == ["0001_jobs.sql", "0002_revocations.sql"]
    assert await migrate(connection) == []
    assert await connection.fetchval("select count(*) from escala.job") == 0
    await connection.close()


async def test_two_at_a_time(postgres_url: str) -> None:
    url = await fresh_database(postgres_url, "racing")
    connections = [await asyncpg.connect(url) for _ in range(4)]
    applied = await asyncio.gather(*map(migrate, connections))
    assert sorted(applied) == [[], [], [], ["0001_jobs.sql", "0002_revocations.sql"]]
    for connection in connections:
        await connection.close()
