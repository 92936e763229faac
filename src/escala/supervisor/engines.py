"""The engines of a running project: started in parallel, kept alive, stopped last."""

import asyncio
import time

import asyncpg

from escala.database.migrate import migrate
from escala.engines import Engine, postgres_engine, valkey_engine
from escala.engines.postgres import EmbeddedPostgres
from escala.errors import EngineFailed
from escala.events import Emit, EngineReady, Migrated
from escala.processes.lifecycle import Lifecycle
from escala.processes.process import ProcessSpec
from escala.project.project import Project
from escala.supervisor.children import Children

EXTERNAL_SECONDS = 5.0
"""How long an external engine may take to answer."""


class EngineLifecycle(Lifecycle):
    """The lifecycle of an engine. The caller has already prepared the engine for its first start."""

    start_timeout = 60.0

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._started = False

    async def prepare(self) -> ProcessSpec:
        if self._started:
            await asyncio.to_thread(self._engine.prepare)
        self._started = True
        spec = self._engine.process()
        assert spec is not None
        return spec

    async def probe(self) -> None:
        await self._engine.probe()


class Engines:
    def __init__(self, project: Project, children: Children, emit: Emit) -> None:
        self._postgres = postgres_engine(project.config, project.layout)
        self._valkey = valkey_engine(project.config, project.layout)
        self._children = children
        self._emit = emit

    @property
    def postgres_url(self) -> str:
        return self._postgres.url

    @property
    def connections(self) -> int | None:
        """How many connections the embedded PostgreSQL accepts; None for an external one."""
        return self._postgres.connections if isinstance(self._postgres, EmbeddedPostgres) else None

    @property
    def valkey_url(self) -> str:
        return self._valkey.url

    async def start(self) -> None:
        """Start the embedded engines, and check that the external ones answer.

        If any fails, raise the first failure after all have finished.
        """
        starts = (self._start(engine) for engine in (self._postgres, self._valkey))
        for outcome in await asyncio.gather(*starts, return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def migrate(self) -> None:
        """Bring Escala's own tables up to date."""
        try:
            connection = await asyncpg.connect(self.postgres_url)
            try:
                names = await migrate(connection)
            finally:
                await connection.close()
        except (asyncpg.PostgresError, OSError) as error:
            raise EngineFailed("PostgreSQL", f"Escala's tables cannot be created or updated: {error}") from None
        if names:
            self._emit(Migrated(tuple(names)))

    async def _start(self, engine: Engine) -> None:
        began = time.monotonic()
        await asyncio.to_thread(engine.prepare)
        if engine.process() is None:
            await _require_answer(engine)
            self._emit(EngineReady(engine.name, external=True, seconds=time.monotonic() - began))
            return
        child = self._children.engines[engine.name] = self._children.make(engine.name, EngineLifecycle(engine))
        child.start()
        if not await child.wait_tried():
            raise child.failure or EngineFailed(engine.name, f"could not start: {child.last_words()}")


async def _require_answer(engine: Engine) -> None:
    try:
        async with asyncio.timeout(EXTERNAL_SECONDS):
            await engine.probe()
    except OSError as error:
        key = f"engines.{engine.name}.url"
        raise EngineFailed(engine.name, f"does not answer at {key}: {str(error) or 'no answer in time'}") from None
