"""The control socket: HTTP on a Unix socket that only the project's user may open.

::

    GET  /status            what runs (?brief leaves out memory, jobs and cache)
    GET  /changes           what an `apply` would change
    POST /operations        begin an operation; 202 with its id
    GET  /operations        the latest operations
    GET  /operations/{id}   the progress of one operation
    GET  /events            a stream of events, one JSON document per line
    POST /stop              stop the project

Bodies and answers are JSON (`control.messages`, `control.status`). A refused request is answered with 409.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from escala.control.event_bus import Subscription, document
from escala.control.messages import AnyRequest, Applied, OperationStatus, Refusal
from escala.control.status import Status
from escala.errors import EscalaError
from escala.http.embedded_server import EmbeddedServer

_BEAT_SECONDS = 1.0
"""Seconds between two heartbeats (empty lines) on a stream without events."""


class Operated(Protocol):
    """The interface to operations that the server needs."""

    async def changes(self) -> Applied: ...
    def begin(self, request: AnyRequest) -> OperationStatus: ...
    def operations(self) -> list[OperationStatus]: ...
    def operation(self, identifier: str) -> OperationStatus | None: ...


class TakeStatus(Protocol):
    async def __call__(self, *, brief: bool) -> Status: ...


class ControlServer:
    def __init__(
        self,
        path: Path,
        *,
        operations: Operated,
        status: TakeStatus,
        subscribe: Callable[[], AbstractContextManager[Subscription]],
        stop: Callable[[str], None],
    ) -> None:
        self._path = path
        self._operated = operations
        self._take_status = status
        self._subscribe = subscribe
        self._stop_project = stop
        self._socket = _bind(path)
        routes = [
            Route("/status", self._status),
            Route("/changes", self._changes),
            Route("/operations", self._begin, methods=["POST"]),
            Route("/operations", self._operations),
            Route("/operations/{id}", self._operation),
            Route("/events", self._events),
            Route("/stop", self._stop, methods=["POST"]),
        ]
        app = Starlette(routes=routes, exception_handlers={EscalaError: _refuse, msgspec.MsgspecError: _malformed})
        self._server = EmbeddedServer(app)
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve([self._socket]), name="control socket")

    async def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._closing.set()
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()

    async def _status(self, request: Request) -> Response:
        return _json(await self._take_status(brief="brief" in request.query_params))

    async def _changes(self, request: Request) -> Response:
        return _json(await self._operated.changes())

    async def _begin(self, request: Request) -> Response:
        begun = self._operated.begin(msgspec.json.decode(await request.body(), type=AnyRequest))
        return _json(begun, 202, {"Location": f"/operations/{begun.id}"})

    async def _operations(self, request: Request) -> Response:
        return _json(self._operated.operations())

    async def _operation(self, request: Request) -> Response:
        found = self._operated.operation(request.path_params["id"])
        return _json(found) if found else _json(Refusal("unknown_operation", "there is no such operation", 1), 404)

    async def _stop(self, request: Request) -> Response:
        self._stop_project("requested by `escala down`")
        return Response(status_code=202)

    async def _events(self, request: Request) -> Response:
        return StreamingResponse(self._stream(), media_type="application/x-ndjson")

    async def _stream(self) -> AsyncIterator[bytes]:
        """Yield events as they occur. Empty lines in between are a heartbeat: they show that the server is alive."""
        with self._subscribe() as subscription:
            yield b"\n"  # tells the client that from now on it gets every event
            events = aiter(subscription)
            waiting = asyncio.ensure_future(anext(events))
            closing = asyncio.ensure_future(self._closing.wait())
            try:
                while not closing.done():
                    await asyncio.wait({waiting, closing}, timeout=_BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                    if waiting.done():
                        yield msgspec.json.encode(document(*waiting.result())) + b"\n"
                        waiting = asyncio.ensure_future(anext(events))
                    else:
                        yield b"\n"
            finally:
                waiting.cancel()
                closing.cancel()


def _bind(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # we hold the lock, so its creator has ended
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    path.chmod(0o600)  # its folder is 0700 already
    return server


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, EscalaError)
    return _json(Refusal.of(error), 409)


async def _malformed(request: Request, error: Exception) -> Response:
    return _json(Refusal("malformed", f"the request is malformed: {error}", 1), 400)
