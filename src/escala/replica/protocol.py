"""uvicorn's HTTP/1.1 protocols, changed: a response is sent in one write, and trailers are not added to the headers.

uvicorn writes the head and the body of a response separately. If a replica is killed between the two writes, the
gateway has already passed on the head. The request then fails, and a retry is no longer possible. With a single write,
a response that fits into the socket's buffer is sent completely or not at all. If it was not sent, the gateway can
retry the request on another replica. A single write also saves a system call.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class CoalescingTransport:
    """Wraps a transport and joins the data written within one iteration of the event loop."""

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
    """HTTP/1.1 for the methods that the parser (llhttp) knows."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(CoalescingTransport(transport, self.loop))  # type: ignore[arg-type]

    def on_headers_complete(self) -> None:
        # uvicorn appends trailers to the list of request headers. A client could thus add its own X-Forwarded-For to
        # the gateway's. Trailers are not headers (RFC 9110, section 6.5.1). The copy keeps them out.
        self.scope["headers"] = self.headers.copy()
        super().on_headers_complete()


class AnyMethodProtocol(H11Protocol):
    """HTTP/1.1 for any method name. Its parser (h11) is a few times slower, and ignores trailers."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(CoalescingTransport(transport, self.loop))  # type: ignore[arg-type]
