"""Whether a replica is well, answered by its own program, so that a busy app is not taken for a dead one.

The supervisor's question carries X-Escala-Check; clients' requests cannot, as the gateway takes it away. That it is
answered shows that the app's lifespan has begun and that the event loop goes round. The app itself is asked only where
escala.toml names a page (`health`): then its answer holds, and if it comes late, the last one before it.
"""

import asyncio
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from escala.http.internal_headers import CHECK, THREADS

_HEADER = CHECK.lower().encode()
_logger = logging.getLogger("escala")

PATIENCE = 1.0
"""Seconds that the app has for its answer; the supervisor waits for twice as long."""
_STALE = 30.0
"""Seconds after which the last answer says nothing any more, where no request has ended since."""


class Health:
    """ASGI middleware: answers the supervisor; `page` is asked where there is one."""

    def __init__(self, app: ASGIApp, page: str | None, threads: int | None) -> None:
        self.app = app
        self._page = page
        self._threads = threads
        self._inflight = 0
        self._status = 503
        """What the page answered last."""
        self._heard = 0.0
        """When the page answered last, or a request ended (the loop's time)."""
        self._asking: asyncio.Task[int] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and any(name == _HEADER for name, _ in scope["headers"]):
            await self._answer(scope, receive, send)
            return
        counts = scope["type"] == "http"  # a WebSocket is silent for hours, and keeps no thread
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
        """Return the status of the app's page. While the app is busy with others, a late answer says nothing."""
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
            await asyncio.Event().wait()  # nobody leaves before the answer; who listens for that is cancelled
            raise AssertionError

        async def send(message: Message) -> None:
            nonlocal found
            if message["type"] == "http.response.start":
                found = message["status"]

        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != _HEADER]
        try:
            await self.app(scope, receive, send)
        except Exception:  # the user's own code: whatever it raises, the page has not answered well
            if self._status != 500:  # once, not each second
                _logger.exception("the health page %s failed", self._page)
            return 500
        return found
