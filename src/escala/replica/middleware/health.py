"""Health checks of a replica, answered by Escala's own code, so that a busy app is not taken for a dead one.

A request of the supervisor carries the header X-Escala-Check. A client's request cannot: the gateway removes the
header. An answer shows that the app's lifespan has started and that the event loop is running. The app itself is asked
only if escala.toml names a page (`health`). Then the status of that page is the answer. If the page answers too late
because the app is busy, its last answer is used.
"""

import asyncio
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from escala.http.internal_headers import CHECK, THREADS

_HEADER = CHECK.lower().encode()
_logger = logging.getLogger("escala")

PATIENCE = 1.0
"""Seconds that the app's page has to answer. The supervisor waits twice as long."""
_STALE = 30.0
"""Seconds after which the page's last answer is no longer used, unless a request has ended since."""


class Health:
    """ASGI middleware that answers the supervisor's health checks.

    `page` is the path of the app's health page, if there is one. `threads` is sent to the supervisor if it is not None.
    """

    def __init__(self, app: ASGIApp, page: str | None, threads: int | None) -> None:
        self.app = app
        self._page = page
        self._threads = threads
        self._inflight = 0
        self._status = 503
        """The page's last status."""
        self._heard = 0.0
        """When the page last answered or a request last ended (event loop time)."""
        self._asking: asyncio.Task[int] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and any(name == _HEADER for name, _ in scope["headers"]):
            await self._answer(scope, receive, send)
            return
        counts = scope["type"] == "http"  # an open WebSocket does not mean that the app is busy
        self._inflight += counts
        try:
            await self.app(scope, receive, send)
        finally:
            self._inflight -= counts
            if self._page is not None:
                self._heard = asyncio.get_running_loop().time()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 200 if self._page is None else await self._ask(scope)
        headers = [(b"content-length", b"0")]
        if self._threads is not None:
            headers.append((THREADS.lower().encode(), str(self._threads).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body"})

    async def _ask(self, scope: Scope) -> int:
        """Return the status of the app's page.

        If the page is late while the app is busy with other requests, return its last status.
        """
        loop = asyncio.get_running_loop()
        if self._asking is None or self._asking.done():
            self._asking = loop.create_task(self._page_status(dict(scope)))
        await asyncio.wait({self._asking}, timeout=PATIENCE)
        if self._asking.done():
            self._status, self._heard = self._asking.result(), loop.time()
        elif not self._inflight or loop.time() - self._heard > _STALE:
            return 503
        return self._status

    async def _page_status(self, scope: Scope) -> int:
        found = 500
        messages: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            # This request never disconnects. An app that waits for a disconnect is cancelled at the end.
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            nonlocal found
            if message["type"] == "http.response.start":
                found = message["status"]

        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != _HEADER]
        try:
            await self.app(scope, receive, send)
        except Exception:  # user code may raise anything; the check has then failed
            if self._status != 500:  # log it once, not every second
                _logger.exception("the health page %s failed", self._page)
            return 500
        return found
