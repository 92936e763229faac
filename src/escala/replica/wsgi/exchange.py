"""A request between its thread and the event loop."""

import asyncio
import concurrent.futures
import threading
from collections import deque

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Send

_LOOKAHEAD = 256 * 1024
"""Bytes of a body that wait for the app to read them."""
_BODY_SECONDS = 10.0
"""How long a body may stand still while the app reads it."""
_UNSENT = 64 * 1024
"""Bytes of an answer that may wait for the client while the app makes more."""
_LISTEN_AFTER = 0.02
"""Seconds after which it is watched whether the client leaves."""


class ClientLeft(ConnectionResetError):
    """The client has closed the connection."""


class Exchange:
    """A request between its thread, which reads and sends in blocking calls, and the loop, which carries them out."""

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Receive, *, lazy: bool) -> None:
        self.gone = False
        """Whether the client has left."""
        self.started = False
        """Whether the answer's head was sent."""
        self.refusal: HTTPException | None = None
        """Why the rest of the body is not read, such as its size; the answer where the app has not begun one."""
        self._loop = loop
        self._receive = receive
        self._lazy = lazy
        """A client that expects 100 gets it when the app reads, and ASGI sends it when it is asked for the body."""
        self._listening: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._wake = asyncio.Event()
        """Set when there is something to send, or nothing will be sent any more."""
        self._news = threading.Condition()
        # Guarded by it:
        self._chunks: deque[bytes] = deque()
        self._waiting = 0
        self._complete = False
        self._outgoing: list[Message] = []
        self._unsent = 0

    # On the loop

    async def serve(self, thread: "concurrent.futures.Future[None]", send: Send) -> None:
        """Send what the thread has to say until it has ended."""
        # Most requests are answered before it matters whether the client is there.
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
            self._tell(gone=True)  # where sending failed, so that the thread ends too
            if timer is not None:
                timer.cancel()
            if self._listening is not None:
                self._listening.cancel()

    def _listen(self) -> None:
        if self._listening is None:
            self._listening = self._loop.create_task(self._take())

    async def _take(self) -> None:
        """Take the body's pieces as there is room for them, and then wait for the client to leave."""
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

    # In the thread

    def read(self) -> bytes:
        """Return the next piece of the body, nothing at its end; raise ClientLeft or OSError where there is no end."""
        if self._listening is None:
            self._loop.call_soon_threadsafe(self._listen)
        with self._news:
            told = self._news.wait_for(
                lambda: self._chunks or self._complete or self.gone or self.refusal, _BODY_SECONDS
            )
            if not told:  # a thread is too dear for a body that stands still
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
            raise ClientLeft("the client has left")

    def send(self, *messages: Message) -> None:
        """Hand messages over, once what was sent before is on its way; raise ClientLeft where nobody gets them."""
        if self._listening is None and self.started:  # an answer in pieces may go on for long
            self._loop.call_soon_threadsafe(self._listen)
        with self._news:
            self._news.wait_for(lambda: self._unsent < _UNSENT or self.gone)
            if self.gone:
                raise ClientLeft("the client has left")
            self.started = True
            wake = not self._outgoing
            self._outgoing += messages
            self._unsent += sum(len(message.get("body", b"")) for message in messages)
        if wake:
            self._loop.call_soon_threadsafe(self._wake.set)
