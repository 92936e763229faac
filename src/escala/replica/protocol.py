"""uvicorn's HTTP/1.1 as replicas speak it: answers in one write, and headers without trailers.

uvicorn writes head and body apart. A replica killed between the two leaves the gateway with a head that it has passed
on already: that request fails, and no retry can help. Written together, a response that fits the socket's buffer is
out whole or not at all, and a retry elsewhere answers the request. It saves a system call, too.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class CoalescingTransport:
    """Stands in for a transport and joins what is written within one turn of the event loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._waiting:
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 for the methods that its parser (llhttp) knows."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(CoalescingTransport(transport, self.loop))  # type: ignore[arg-type]

    def on_headers_complete(self) -> None:
        # uvicorn appends trailers to the request's headers, where a client's X-Forwarded-For would stand beside the
        # gateway's. They are no headers (RFC 9110, section 6.5.1).
        self.scope["headers"] = self.headers.copy()
        super().on_headers_complete()


class AnyMethodProtocol(H11Protocol):
    """HTTP/1.1 for methods of any name, at a few times the parser's cost. It drops trailers by itself."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(CoalescingTransport(transport, self.loop))  # type: ignore[arg-type]
