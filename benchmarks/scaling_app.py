"""The app of `benchmarks.scaling`: one handler waits, one calculates, one answers with the replica's name."""

import asyncio
import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

WAIT = 0.05
ROUNDS = 60_000


async def wait(request: Request) -> Response:
    await asyncio.sleep(WAIT)
    return Response(os.environ.get("ESCALA_REPLICA", ""))


async def calculate(request: Request) -> Response:
    total = 0
    for number in range(ROUNDS):
        total += number * number % 7
    return Response(str(total))


async def name(request: Request) -> Response:
    return Response(os.environ.get("ESCALA_REPLICA", ""))


app = Starlette(routes=[Route("/wait", wait), Route("/calculate", calculate), Route("/name", name)])
