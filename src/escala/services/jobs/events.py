"""GET /jobs/{id}/events: server-sent events of a job's state and progress, until it has finished."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from escala import database
from escala.errors import DatabaseUnavailable
from escala.services.jobs.access import visible
from escala.tasks.store import administration
from escala.tasks.store.administration import Watched

LOOK_SECONDS = 0.5
_ALIVE_SECONDS = 15.0
"""A comment is sent so often, so that no proxy takes the stream for dead."""


class Watcher:
    """Asks for all jobs that are watched in one query, twice a second, as long as there are any."""

    def __init__(self) -> None:
        self._watching: dict[uuid.UUID, set[asyncio.Queue[Watched | None]]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def follow(self, job: uuid.UUID) -> AsyncIterator[Watched | None]:
        """Yield what the job does, whenever that was asked; None if it does not exist any more."""
        inbox: asyncio.Queue[Watched | None] = asyncio.Queue()
        self._watching.setdefault(job, set()).add(inbox)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="watched jobs")
        try:
            while True:
                yield await inbox.get()
        finally:
            self._watching[job].discard(inbox)
            if not self._watching[job]:
                del self._watching[job]

    async def _look(self) -> None:
        try:
            while self._watching:
                wanted = list(self._watching)
                try:
                    async with database.connection() as connection:
                        found = {each.id: each for each in await administration.watch(connection, wanted)}
                except DatabaseUnavailable:
                    await asyncio.sleep(LOOK_SECONDS)
                    continue
                for job in wanted:
                    for inbox in self._watching.get(job, ()):
                        inbox.put_nowait(found.get(job))
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._looking = None


_watcher = Watcher()


async def events(request: Request) -> Response:
    record = await visible(request)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(record.id), media_type="text/event-stream", headers=headers)


async def _stream(job: uuid.UUID) -> AsyncIterator[bytes]:
    """Yield an event when something has changed: `state` when the state has, otherwise `progress`."""
    before: Watched | None = None
    said_at = time.monotonic()
    async for now in _watcher.follow(job):
        if now is None:  # deleted
            return
        if now != before:
            is_new = before is None or (before.state, before.attempt) != (now.state, now.attempt)
            before, said_at = now, time.monotonic()
            data = msgspec.json.encode(now._asdict())
            yield b"event: %b\ndata: %b\n\n" % (b"state" if is_new else b"progress", data)
            if now.is_over:
                return
        elif time.monotonic() - said_at > _ALIVE_SECONDS:
            said_at = time.monotonic()
            yield b": alive\n\n"
