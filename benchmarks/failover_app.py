"""An app that answers with the name of its replica, either at once or after a given time."""

import asyncio
import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


async def quick(request: Request) -> Response:
    return PlainTextResponse(os.environ["ESCALA_REPLICA"])


async def long(request: Request) -> Response:
    await asyncio.sleep(float(request.query_params["seconds"]))
    return PlainTextResponse(os.environ["ESCALA_REPLICA"])


app = Starlette(routes=[Route("/quick", quick), Route("/long", long)])
