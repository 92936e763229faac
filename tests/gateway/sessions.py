"""An MCP server with sessions, and a plain app that names sessions in a header."""

import os
import uuid

from mcp.server.mcpserver import MCPServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

server = MCPServer("counters")
total = 0


@server.tool()
def add(amount: int) -> dict[str, object]:
    """Add to a number that only this process knows."""
    global total
    total += amount
    return {"replica": os.environ["ESCALA_REPLICA"], "pid": os.getpid(), "total": total}


mcp = server.streamable_http_app()

known: set[str] = set()


async def begin(request: Request) -> Response:
    name = uuid.uuid4().hex
    known.add(name)
    return JSONResponse({"replica": os.environ["ESCALA_REPLICA"], "name": name}, headers={"X-Session": name})


async def go_on(request: Request) -> Response:
    name = request.headers.get("x-session", "")
    return JSONResponse({"replica": os.environ["ESCALA_REPLICA"], "known": name in known, "name": name})


plain = Starlette(routes=[Route("/named/begin", begin), Route("/named/go-on", go_on)])
