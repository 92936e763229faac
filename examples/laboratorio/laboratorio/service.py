"""What all services of the laboratory share."""

from typing import Annotated

from fastapi import FastAPI, Query

import escala
from escala import auth
from escala.environment import Environment
from escala.http import problem

REPLICA = Environment.read().replica

Limit = Annotated[int, Query(ge=1, le=500, description="How many at most.")]
Page = Annotated[int, Query(ge=1, le=100_000, description="The first is 1.")]


def service(title: str) -> FastAPI:
    """Return an app that verifies tokens, answers errors as problem documents, and says whether it is well."""
    app = FastAPI(title=title, lifespan=escala.lifespan, exception_handlers=problem.handlers())
    app.add_middleware(auth.Middleware)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "replica": REPLICA}

    return app
