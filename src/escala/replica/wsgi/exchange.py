"""Passes a request and its response between a WSGI thread and the event loop."""

import asyncio
import concurrent.futures
import threading
from collections import deque

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Send

_LOOKAHEAD = 256 * 1024
"""The number of body bytes that are buffered until the app reads them."""
_BODY_SECONDS = 10.0
"""How long the app waits for the next piece of a body before the request fails with 408."""
_UNSENT = 64 * 1024
"""The number of response bytes that may wait for the client before the app's next write blocks."""
_LISTEN_AFTER = 0.02
"""Seconds after which the exchange begins to watch for a client that disconnects."""


class ClientLeft(ConnectionResetError):
    """The client has closed the connection."""


class Exchange:
    """One request and its response. The WSGI thread makes blocking calls, and the event loop carries them out.

    With `lazy`, the body is received only when the app reads it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Receive, *, lazy: bool) -> None:
        self.gone = False
        """Whether the client has disconnected, or sending has ended."""
        self.started = False
        """Whether the response has begun, so that its head can no longer change."""
        self.refusal: HTTPException | None = None
        """Why the rest of the body is not read, such as its size. It is the response if the app has not begun one."""
        self._loop = loop
        self._receive = receive
        self._lazy = lazy
        """Whether the client expects "100 Continue". The server sends that when the body is first
        received, so nothing is received before the app reads."""
        self._listening: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._wake = asyncio.Event()
        """Set when there are messages to send, or when the thread has ended."""
        self._news = threading.Condition()
        # The following are guarded by _news:
        self._chunks: deque[bytes] = deque()
        self._waiting = 0
        self._complete = False
        self._outgoing: list[Message] = []
        self._unsent = 0

    # Called on the event loop

    async def serve(self, thread: "concurrent.futures.Future[None]", send: Send) -> None:
        """Send the thread's messages until it has ended."""
        # Most requests are answered before it matters whether the client is still connected.
        timer = None if self._lazy else self._loop.call_later(_LISTEN_AFTER, self._listen)
        thread.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._wake.set))
        try:
            while not thread.done() or self._outgoing:
                await self._wake.wait()
                self._wake.clear()
                with self._news:
                    messages, self._outgoing, self._unsent = self._outgoing, [], 0
                    self._news.notify_all()
                for message in messages:
                    await send(message)
            thread.result()
        finally:
            self._tell(gone=True)  # if sending failed, this makes the thread end too
            if timer is not None:
                timer.cancel()
            if self._listening is not None:
                self._listening.cancel()

    def _listen(self) -> None:
        if self._listening is None:
            self._listening = self._loop.create_task(self._take())

    async def _take(self) -> None:
        """Receive the body as long as the buffer has room, then wait for the client to disconnect."""
        while True:
            await self._room.wait()
            try:
                message = await self._receive()
            except HTTPException as error:
                self._tell(refusal=error)
                return
            if message["type"] == "http.disconnect":
                self._tell(gone=True)
                return
            self._tell(message.get("body", b""), complete=not message.get("more_body", False))

    def _tell(
        self, chunk: bytes = b"", *, complete: bool = False, gone: bool = False, refusal: HTTPException | None = None
    ) -> None:
        with self._news:
            if chunk:
                self._chunks.append(chunk)
                self._waiting += len(chunk)
                if self._waiting > _LOOKAHEAD:
                    self._room.clear()
            self._complete = self._complete or complete
            self.gone = self.gone or gone
            self.refusal = self.refusal or refusal
            self._news.notify_all()

    # Called in the WSGI thread

    def read(self) -> bytes:
        """Return the next piece of the body, or b"" at its end.

        Raises ClientLeft if the client has disconnected, and OSError if the body was refused or did not arrive in time.
        """
        if self._listening is None:
            self._loop.call_soon_threadsafe(self._listen)
        with self._news:
            told = self._news.wait_for(
                lambda: self._chunks or self._complete or self.gone or self.refusal, _BODY_SECONDS
            )
            if not told:  # a stalled body must not occupy a thread
                self.refusal = HTTPException(408, "The request's body did not arrive in time.")
            if self._chunks:
                chunk = self._chunks.popleft()
                self._waiting -= len(chunk)
                if not self._room.is_set() and self._waiting <= _LOOKAHEAD:
                    self._loop.call_soon_threadsafe(self._room.set)
                return chunk
            if self._complete:
                return b""
            if self.refusal is not None:
                raise OSError(self.refusal.detail)
            raise ClientLeft("the client has disconnected")

    def send(self, *messages: Message) -> None:
        """Pass messages to the event loop. Blocks while too many bytes wait to be sent.

        Raises ClientLeft if the client has disconnected.
        """
        if self._listening is None and self.started:  # a streamed response may last long
            self._loop.call_soon_threadsafe(self._listen)
        with self._news:
            self._news.wait_for(lambda: self._unsent < _UNSENT or self.gone)
            if self.gone:
                raise ClientLeft("the client has disconnected")
            self.started = True
            wake = not self._outgoing
            self._outgoing += messages
            self._unsent += sum(len(message.get("body", b"")) for message in messages)
        if wake:
            self._loop.call_soon_threadsafe(self._wake.set)
