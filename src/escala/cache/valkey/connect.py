"""Where Valkey is, and how to connect to it."""

from collections.abc import Callable
from typing import TypeAlias

import valkey.asyncio

Make: TypeAlias = Callable[[], valkey.asyncio.Connection]


class Connector:
    """Makes connections to the Valkey at a URL."""

    def __init__(self, url: str) -> None:
        self._pool = valkey.asyncio.ConnectionPool.from_url(url)
        # Answers are bytes, whatever the URL asks for. Time is limited by the link.
        self._pool.connection_kwargs |= {"decode_responses": False, "socket_timeout": None, "protocol": 2}

    async def locate(self) -> Make:
        """Find the server; return what makes connections to it. Raises the exceptions of a lost connection."""
        return self._pool.make_connection
