"""The supervisor's question to a replica, on sockets that answer in all ways."""

import asyncio
import socket
from pathlib import Path

import pytest

from escala.config import UnixSocket
from escala.supervisor.replicas.probe import ask


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", "healthy"),
        (b"HTTP/1.1 404 Not Found\r\nX: y\r\n\r\n", "healthy"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "unhealthy"),
        (b"nonsense\r\n\r\n", "unhealthy"),
        (b"x" * 200_000, "unhealthy"),
        (b"", "unhealthy"),
    ],
)
async def test_answers(folder: Path, answer: bytes, expected: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    path = str(folder / "s")
    server = await asyncio.start_unix_server(serve, path)
    async with server:
        assert await ask(UnixSocket(path), None, "web/1") == expected


async def test_nobody_listens(folder: Path) -> None:
    assert await ask(UnixSocket(str(folder / "absent")), None, "web/1") == "unhealthy"


async def test_a_full_backlog_is_silence(folder: Path) -> None:
    """Whoever has so many waiting is not gone."""
    path = str(folder / "s")
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
        listening.bind(path)
        listening.listen(0)
        first.connect(path)
        assert await ask(UnixSocket(path), "tcp", "web/1") == "silent"
