"""The control socket: HTTP on a Unix socket that only the project's user may open."""

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from escala.control.messages import Applied, Apply, Canary, Drain, Refusal, Reload, Revoke, Roll, Scale
from escala.control.status import Status
from escala.errors import EscalaError
from escala.http.embedded_server import InnerServer


class Operated(Protocol):
    """What may be asked of a running project."""

    async def status(self, *, brief: bool) -> Status: ...
    def ask_to_stop(self, reason: str) -> None: ...
    def scale(self, service: str, count: int) -> None: ...
    async def drain(self, replica: str, drained: bool) -> None: ...
    async def apply(self, *, dry: bool) -> Applied: ...
    def roll(self, services: Sequence[str] | None, canary: Canary | None) -> list[str]: ...
    async def revoke(self, kind: str, value: str, expires_at: float | None) -> None: ...
    async def reload(self, what: str) -> None: ...


class Control:
    """Serves GET /status (?brief) and POST /stop, /scale, /drain, /apply, /roll, /revoke, /reload; bodies are JSON."""

    def __init__(self, path: Path, operated: Operated) -> None:
        self._path = path
        self._operated = operated
        self._socket = _bind(path)
        handlers = [self._stop, self._scale, self._drain, self._apply, self._roll, self._revoke, self._reload]
        routes = [Route("/status", self._status)]
        routes += [Route(f"/{each.__name__.lstrip('_')}", each, methods=["POST"]) for each in handlers]
        app = Starlette(routes=routes, exception_handlers={EscalaError: _refuse, msgspec.MsgspecError: _malformed})
        self._server = InnerServer(app)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve([self._socket]), name="control socket")

    async def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._server.should_exit = True
        if self._task is not None:
            await self._task

    async def _status(self, request: Request) -> Response:
        return _json(await self._operated.status(brief="brief" in request.query_params))

    async def _stop(self, request: Request) -> Response:
        self._operated.ask_to_stop("asked by `escala down`")
        return Response(status_code=202)

    async def _scale(self, request: Request) -> Response:
        asked = msgspec.json.decode(await request.body(), type=Scale)
        self._operated.scale(asked.service, asked.count)
        return Response(status_code=202)

    async def _drain(self, request: Request) -> Response:
        asked = msgspec.json.decode(await request.body(), type=Drain)
        await self._operated.drain(asked.replica, asked.drained)
        return Response(status_code=204)

    async def _apply(self, request: Request) -> Response:
        asked = msgspec.json.decode(await request.body(), type=Apply)
        return _json(await self._operated.apply(dry=asked.dry))

    async def _roll(self, request: Request) -> Response:
        asked = msgspec.json.decode(await request.body(), type=Roll)
        return _json(self._operated.roll(asked.services, asked.canary), 202)

    async def _revoke(self, request: Request) -> Response:
        asked = msgspec.json.decode(await request.body(), type=Revoke)
        await self._operated.revoke(asked.kind, asked.value, asked.expires_at)
        return Response(status_code=204)

    async def _reload(self, request: Request) -> Response:
        asked = msgspec.json.decode(await request.body(), type=Reload)
        await self._operated.reload(asked.what)
        return Response(status_code=204)


def _bind(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # the lock is ours, so whoever made it is dead
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    path.chmod(0o600)  # its folder is 0700 already
    return server


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, EscalaError)
    return _json(Refusal(str(error), error.exit_code), 409)


async def _malformed(request: Request, error: Exception) -> Response:
    return _json(Refusal(f"the command line and the running supervisor are of different versions: {error}", 1), 400)
