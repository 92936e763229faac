"""The body limit inside a replica.

The gateway refuses a body whose Content-Length is too large. A chunked body has no Content-Length, so each Python
replica counts the bytes that it reads.
"""

import re

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from escala.http.internal_headers import MAX_BODY
from escala.http.problem import Problem

_HEADER = MAX_BODY.lower().encode()
_SIZE = re.compile(rb"\d{1,15}")


class BodyLimit:
    """ASGI middleware that answers 413 when a body is too large.

    The limit is `limit` bytes, or the limit in the gateway's X-Escala-Max-Body header if that is smaller.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self._limit_of(scope)
        received = 0
        started = False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                # Starlette and FastAPI pass this exception to the app's own exception handlers.
                raise HTTPException(413, f"The body is larger than the {limit} bytes allowed.")
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, counted, watched)
        except HTTPException as error:
            if started or received <= limit:
                raise
            await Problem(413, error.detail).response()(scope, receive, send)

    def _limit_of(self, scope: Scope) -> int:
        named = [int(value) for name, value in scope["headers"] if name == _HEADER and _SIZE.fullmatch(value)]
        return min([self.limit, *named])
