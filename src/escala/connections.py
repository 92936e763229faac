"""The composition root of the library part: opens what `database`, `Cache` and `task` use, and closes it again."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from escala import cache, database
from escala.cache import CacheSystem
from escala.database import Database
from escala.environment import Environment


@asynccontextmanager
async def running(environment: Environment | None = None) -> AsyncIterator[None]:
    """Connect database and cache for a script or a test: ``async with escala.running(): ...``.

    The addresses come from the environment unless one is given. What has no address stays unconnected, and using it
    raises NotConnected.
    """
    environment = environment or Environment.read()
    async with AsyncExitStack() as stack:
        if environment.postgres:
            pool = Database(environment.postgres, size=int(environment.database_pool))
            await pool.open()
            stack.push_async_callback(pool.close)
            database.slot.fill(pool)
            stack.callback(database.slot.empty)
        if environment.valkey:
            system = CacheSystem(environment.valkey, environment.project, int(environment.cache_entries))
            await system.open()
            stack.push_async_callback(system.close)
            cache.slot.fill(system)
            stack.callback(cache.slot.empty)
        yield


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Connect database and cache for as long as an app runs: ``FastAPI(lifespan=escala.lifespan)``."""
    async with running():
        yield
