"""The code that all services of the laboratory share."""

from typing import Annotated

from fastapi import FastAPI, Query

import escala
from escala import auth
from escala.environment import Environment
from escala.http import problem

REPLICA = Environment.read().replica

Limit = Annotated[int, Query(ge=1, le=500, description="The maximum number of items.")]
Page = Annotated[int, Query(ge=1, le=100_000, description="The page number; the first page is 1.")]


def service(title: str) -> FastAPI:
    """Return an app that verifies tokens, answers errors with problem documents, and has a health page."""
    app = FastAPI(title=title, lifespan=escala.lifespan, exception_handlers=problem.handlers())
    app.add_middleware(auth.Middleware)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "replica": REPLICA}

    return app
