"""The control socket: HTTP on a Unix socket that only the project's user may open."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from escala.supervisor.status import Status


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the supervisor's


class Control:
    """Serves GET /status and POST /stop."""

    def __init__(self, path: Path, *, status: Callable[[], Status], stop: Callable[[str], None]) -> None:
        self._path = path
        self._socket = _bind(path)
        app = Starlette(
            routes=[
                Route("/status", lambda request: _json(status())),
                Route("/stop", self._stop, methods=["POST"]),
            ]
        )
        self._ask_to_stop = stop
        config = uvicorn.Config(
            app, log_config=None, log_level="error", access_log=False, lifespan="off", loop="asyncio", ws="none"
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve([self._socket]), name="control socket")

    async def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._server.should_exit = True
        if self._task is not None:
            await self._task

    async def _stop(self, request: Request) -> Response:
        self._ask_to_stop("asked by `escala down`")
        return Response(status_code=202)


def _bind(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # the lock is ours, so whoever made it is dead
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    path.chmod(0o600)  # its folder is 0700 already
    return server


def _json(status: Status) -> Response:
    return Response(msgspec.json.encode(status), media_type="application/json")
