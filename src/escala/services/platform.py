"""The platform service, which answers /jobs and /.well-known."""

import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from escala import database
from escala.auth import Middleware
from escala.connections import lifespan
from escala.environment import Environment
from escala.http import problem
from escala.http.paths import JWKS_PATH
from escala.http.problem import Problem
from escala.tasks.store import jobs


async def job(request: Request) -> Response:
    """GET /jobs/{id}: the job's state, attempt and progress, and its result or error once it has finished."""
    async with database.connection() as connection:
        record = await jobs.find(connection, _job_id(request))
    if record is None:
        raise Problem(404, "There is no such job.")
    base = f"/jobs/{record.id}/files/"
    document: dict[str, Any] = {
        **msgspec.to_builtins(record),
        "files": {name: base + name for name in record.files},
    }
    headers = {"Retry-After": "1"} if record.finished_at is None else {}
    return Response(msgspec.json.encode(document), headers=headers, media_type="application/json")


async def job_file(request: Request) -> Response:
    """GET /jobs/{id}/files/{name}: a file of the job's result."""
    name = request.path_params["name"]
    async with database.connection() as connection:
        # PostgreSQL cannot store a NUL character and rejects a query with one, so no file has such a name.
        file = None if "\0" in name else await jobs.find_file(connection, _job_id(request), name)
    if file is None:
        raise Problem(404, "There is no such file.")
    # The file comes from a task and is only data: a browser must not run it as a page of this origin.
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"}
    return Response(file.content, headers=headers, media_type=file.media_type)


def jwks(environment: Environment) -> Callable[[Request], Awaitable[Response]]:
    """GET /.well-known/jwks.json: the public keys (RFC 7517)."""

    async def endpoint(request: Request) -> Response:
        content = Path(environment.jwks).read_bytes()  # noqa: ASYNC240 - a small file, always in the page cache
        return Response(content, headers={"Cache-Control": "public, max-age=60"}, media_type="application/json")

    return endpoint


async def health(request: Request) -> Response:
    return Response(b'{"status":"ok"}', media_type="application/json")


def _job_id(request: Request) -> uuid.UUID:
    try:
        return uuid.UUID(request.path_params["id"])
    except ValueError:
        raise Problem(404, "There is no such job.") from None


app = Starlette(
    routes=[
        Route("/jobs/{id}", job),
        Route("/jobs/{id}/files/{name}", job_file),
        Route(JWKS_PATH, jwks(Environment.read())),
        Route("/health", health),
    ],
    lifespan=lifespan,
    exception_handlers=problem.handlers(),
)
app.add_middleware(Middleware, public=("/health", JWKS_PATH))
