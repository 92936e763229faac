"""The web service: each replica is one process of this app."""

import asyncio
import os
from typing import Annotated

from fastapi import Depends, FastAPI

import escala
from app.tasks import report
from escala import Cache, auth

app = FastAPI(lifespan=escala.lifespan)  # connects cache, jobs and database
app.add_middleware(auth.Middleware)  # verifies the token here too

squares = Cache("squares")


@app.get("/hello")
async def hello() -> dict[str, str]:
    return {"hello": os.environ["ESCALA_REPLICA"]}  # ask twice: the gateway spreads requests


@squares.cached(ttl="60s", tags=["squares:{number}"])
async def square(number: int) -> int:
    await asyncio.sleep(0.5)  # the slow thing that is worth remembering: a query, another service
    return number * number


@app.get("/squares/{number}")
async def read_square(number: int) -> dict[str, int]:
    return {"number": number, "square": await square(number)}


@app.post("/reports", status_code=202)
async def order_report(user: Annotated[auth.Principal, Depends(auth.current)], pages: int = 3) -> dict[str, str]:
    job = await report.enqueue(pages=pages, reader=user.subject)
    return {"job": job.id}  # GET /jobs/ID tells how far it is
