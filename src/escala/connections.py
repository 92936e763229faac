"""The composition root of the library: opens and closes the connections that `database`, `Cache` and `task` use."""

from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from escala import cache, database
from escala.cache.system import CacheSystem, Limits, wait_in_thread
from escala.database import Database
from escala.environment import Environment
from escala.units import parse_size

T = TypeVar("T")


@asynccontextmanager
async def running(environment: Environment | None = None) -> AsyncIterator[None]:
    """Connect the database and the cache for a script or a test: ``async with escala.running(): ...``.

    `environment` gives the URLs of PostgreSQL and Valkey; by default it is read from the process's environment
    variables. Without a URL of PostgreSQL, using the database raises NotConnected. Without one of Valkey, using a cache
    raises NoValkey, but for those of the level "l1". The block receives no value (None). Both connections are closed at
    its end.

    An engine that is down does not fail here: its first use does. Raises RuntimeError if the database or the cache is
    already connected in this process (`running` does not nest).
    """
    environment = environment or Environment.read()
    async with AsyncExitStack() as stack:
        if environment.postgres:
            pool = Database(environment.postgres, size=int(environment.database_pool))
            await pool.open()
            stack.push_async_callback(pool.close)
            database.slot.fill(pool)
            stack.callback(database.slot.empty)
        system = CacheSystem(environment.valkey, environment.project, _limits(environment), environment.replica)
        await system.open()
        stack.push_async_callback(system.close)
        cache.slot.fill(system)
        stack.callback(cache.slot.empty)
        yield


def _limits(environment: Environment) -> Limits:
    return Limits(
        entries=int(environment.cache_entries),
        bytes=parse_size(environment.cache_bytes),
        value=parse_size(environment.cache_value),
        compress=parse_size(environment.cache_compress),
    )


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Connect the database and the cache while an ASGI app runs: ``FastAPI(lifespan=escala.lifespan)``.

    `app` is the application that Starlette or FastAPI passes in; it is not used. The URLs come from the process's
    environment variables. Errors are those of `running`.
    """
    async with running():
        yield


def from_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that uses the connections, and wait for it: for plain code in a thread, as in Flask or Django.

    ``escala.from_thread(flights.invalidate("from:JFK"))``. It runs on the event loop of `running`. Raises CalledOnLoop
    on an event loop's thread, NotConnected outside `running`, and every exception of the coroutine.
    """
    return wait_in_thread(work, "escala.from_thread")
