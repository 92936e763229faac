"""Notes the trace of a request (W3C Trace Context), so that a job that it enqueues belongs to it."""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from escala.http.request_context import trace_of_request

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Trace:
    """ASGI middleware: sets `trace_of_request`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with trace_of_request.to(_trace(scope)):
            await self.app(scope, receive, send)


def _trace(scope: Scope) -> str | None:
    found = [value for name, value in scope.get("headers", ()) if name == b"traceparent"]
    return found[0].decode() if len(found) == 1 and _TRACEPARENT.fullmatch(found[0]) else None
