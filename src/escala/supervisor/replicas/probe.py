"""The health probe: a request to a replica's own endpoint."""

import asyncio
import socket
from typing import Literal

from escala.config import Endpoint, UnixSocket
from escala.http.internal_headers import CHECK, THREADS

Answer = Literal["healthy", "unhealthy", "silent"]
"""silent: the replica accepted the probe, or its socket's backlog was full, and it did not answer in time."""

_TIMEOUT = 2.0
_MAX_HEAD = 64 * 1024


async def ask(endpoint: Endpoint, page: str | None, name: str) -> Answer:
    """Ask a replica whether it is healthy."""
    try:
        await probe(endpoint, page, name)
    except TimeoutError:
        return "silent"
    except OSError:
        return "unhealthy"
    return "healthy"


async def probe(endpoint: Endpoint, page: str | None, name: str) -> int | None:
    """Return if the replica is healthy; raise OSError if it is not, TimeoutError if it does not answer in time.

    Healthy means a status below 400, or 404 from an app that has no such page. With the page "tcp", a connection is
    enough. The result is the number of requests that the replica can handle at a time, if it reports one.
    """
    async with asyncio.timeout(_TIMEOUT):
        head = await _head_of_answer(endpoint, page, name)
    if head is None:
        return None
    status, *fields_read = head.decode("latin-1").split("\r\n")
    code = status.partition(" ")[2][:3]
    if code[:1] not in ("2", "3") and code != "404":
        raise ConnectionError("not healthy yet")
    for field in fields_read:
        key, _, value = field.partition(":")
        if key.lower() == THREADS.lower() and value.strip().isdigit():
            return int(value)
    return None


async def _head_of_answer(endpoint: Endpoint, page: str | None, name: str) -> bytes | None:
    """Send the request and return the head of the answer; None if only a connection is checked.

    It uses a bare socket, because asyncio's streams cost several times as much. The probe runs every second for each
    replica.
    """
    loop = asyncio.get_running_loop()
    family = socket.AF_UNIX if isinstance(endpoint, UnixSocket) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        if isinstance(endpoint, UnixSocket):
            try:
                connection.connect(endpoint.path)  # succeeds or fails at once (unix(7))
            except BlockingIOError:  # its backlog is full: it is silent, not gone
                raise TimeoutError("the backlog of its socket is full") from None
        else:
            await loop.sock_connect(connection, tuple(endpoint))
        if page == "tcp":
            return None
        # Over a Unix socket a client has no address, and an app that looks at it would fail.
        fields = f"Host: localhost\r\nX-Forwarded-For: 127.0.0.1\r\n{CHECK}: {name}\r\nConnection: close\r\n"
        await loop.sock_sendall(connection, f"GET {page or '/'} HTTP/1.1\r\n{fields}\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = await loop.sock_recv(connection, 64 * 1024)
            if not piece or len(head) > _MAX_HEAD:
                raise ConnectionError("no answer in HTTP")
            head += piece
        return head
