"""The platform service, which answers /jobs and /.well-known."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from escala.auth import Middleware
from escala.connections import lifespan
from escala.environment import Environment
from escala.http import problem
from escala.http.paths import JWKS_PATH
from escala.services import jobs


def jwks(environment: Environment) -> Callable[[Request], Awaitable[Response]]:
    """GET /.well-known/jwks.json: the public keys (RFC 7517)."""

    async def endpoint(request: Request) -> Response:
        content = Path(environment.jwks).read_bytes()  # noqa: ASYNC240 - a small file, always in the page cache
        return Response(content, headers={"Cache-Control": "public, max-age=60"}, media_type="application/json")

    return endpoint


async def health(request: Request) -> Response:
    return Response(b'{"status":"ok"}', media_type="application/json")


app = Starlette(
    routes=[
        *jobs.routes,
        Route(JWKS_PATH, jwks(Environment.read())),
        Route("/health", health),
    ],
    lifespan=lifespan,
    exception_handlers=problem.handlers(),
)
app.add_middleware(Middleware, public=("/health", JWKS_PATH))
