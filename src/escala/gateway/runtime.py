"""HAProxy's Runtime API (Management Guide, section 9.3): changes to the running gateway without a reload."""

import asyncio
from pathlib import Path

from escala.errors import EscalaError
from escala.gateway.upstream import Server

_TIMEOUT = 5.0


class RuntimeRefused(EscalaError):
    def __init__(self, command: str, answer: str) -> None:
        self.command = command
        self.answer = answer
        super().__init__(f"HAProxy refused {command!r}: {answer}")


class Runtime:
    """A client of the socket. Raises OSError while HAProxy is away, RuntimeRefused where it says no."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def command(self, text: str) -> str:
        """Send one command and return its answer."""
        async with asyncio.timeout(_TIMEOUT):
            reader, writer = await asyncio.open_unix_connection(self._socket)
            try:
                writer.write(f"{text}\n".encode())
                await writer.drain()
                return (await reader.read()).decode().strip()
            finally:
                writer.close()

    async def apply(self, service: str, server: Server) -> None:
        """Let requests go to a replica that is ready; send nothing more, at once, to one that is not."""
        where = f"{service}/{server.name}"
        if not server.ready:
            await self._set(f"set server {where} state maint")
            return
        answer = await self.command(f"set server {where} addr {server.address.host} port {server.address.port}")
        if "no need to change" not in answer and "changed from" not in answer:
            raise RuntimeRefused(f"set server {where} addr", answer)
        await self._set(f"set server {where} state ready")
        await self._set(f"set server {where} health up")

    async def _set(self, text: str) -> None:
        answer = await self.command(text)
        if answer:
            raise RuntimeRefused(text, answer)
