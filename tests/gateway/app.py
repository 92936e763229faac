"""What the gateway's tests run behind it: an app that tells what arrived, and can be slow, large, broken, streaming."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

calls = 0
left = 0
attempts: dict[str, int] = {}


async def echo(request: Request) -> Response:
    """Tell what arrived, and who answers."""
    global calls
    calls += 1
    body = await request.body()
    return JSONResponse(
        {
            "replica": os.environ["ESCALA_REPLICA"],
            "method": request.method,
            "path": request.url.path,
            "raw": request.scope["raw_path"].decode(),
            "query": request.url.query,
            "headers": dict(request.headers),
            "client": request.client.host if request.client else None,
            "body": len(body),
            "calls": calls,
        },
        headers={
            **({"X-Frame-Options": "SAMEORIGIN"} if "own-header" in request.query_params else {}),
            **({"Set-Cookie": "a=b"} if "set-cookie" in request.query_params else {}),
            **({"X-Large": "x" * int(request.query_params["head"])} if "head" in request.query_params else {}),
        },
    )


async def slow(request: Request) -> Response:
    """Answer after a while, or, with ?until=PATH, when that file is there; count clients that left before."""
    global left
    if "left" in request.query_params:
        return JSONResponse({"left": left})
    while "until-left" in request.query_params:
        if await request.is_disconnected():
            left += 1
            break
        await asyncio.sleep(0.02)
    await asyncio.sleep(float(request.query_params.get("seconds", "1")))
    while "until" in request.query_params and not Path(request.query_params["until"]).exists():
        await asyncio.sleep(0.02)
    return JSONResponse({"replica": os.environ["ESCALA_REPLICA"]})


async def large(request: Request) -> Response:
    """Answer with text that compresses well."""
    return PlainTextResponse("flight " * 10_000)


async def events(request: Request) -> Response:
    """Stream server-sent events."""
    count = int(request.query_params.get("count", "3"))

    async def stream() -> AsyncIterator[str]:
        for number in range(count):
            yield f"id: {number}\ndata: {number}\n\n"
            await asyncio.sleep(float(request.query_params.get("pause", "0")))

    return StreamingResponse(stream(), media_type="text/event-stream")


async def dies(request: Request) -> Response:
    """End the process in the middle of a request, the first time that a key is seen anywhere."""
    path = request.query_params["file"]
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return JSONResponse({"replica": os.environ["ESCALA_REPLICA"]})
    os.kill(os.getpid(), 9)
    raise AssertionError


async def upload(request: Request) -> Response:
    """Count the pieces of a body as they arrive."""
    size, pieces = 0, 0
    async for piece in request.stream():
        size, pieces = size + len(piece), pieces + bool(piece)
    return JSONResponse({"size": size, "pieces": pieces, "chunked": "transfer-encoding" in request.headers})


async def talk(socket: WebSocket) -> None:
    """Say back what is said."""
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text.upper())


async def health(request: Request) -> Response:
    assert request.client is not None  # as apps expect who look at it
    return PlainTextResponse(request.client.host)


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

app = Starlette(
    routes=[
        Route("/health", health),
        Route("/slow", slow, methods=METHODS),
        Route("/large", large),
        Route("/events", events),
        Route("/dies", dies, methods=METHODS),
        Route("/upload", upload, methods=["POST"]),
        WebSocketRoute("/talk", talk),
        Route("/{path:path}", echo, methods=METHODS),
    ]
)
