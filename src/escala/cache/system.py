"""Both levels of the cache in one process, and their shared connection to Valkey."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import valkey.asyncio
from valkey.exceptions import ValkeyError

from escala.cache.coherence import Listener
from escala.cache.l1 import L1
from escala.cache.l2 import L2
from escala.errors import CacheUnavailable
from escala.holder import ConnectionHolder

_VALKEY_SECONDS = 1.0
_INVALIDATE_TRIES = 3
UNREACHABLE = (OSError, TimeoutError, ValkeyError)
"""The exceptions that a request to Valkey raises while Valkey is unavailable."""


class Load(NamedTuple):
    """A load in progress. Later callers wait for it too, unless one of its tags has been invalidated since."""

    task: asyncio.Task[Any]
    tags: tuple[str, ...]
    ticket: int


class CacheSystem:
    """Both cache levels of one process, shared by all its `Cache` objects."""

    def __init__(self, url: str, project: str, entries: int) -> None:
        self._client: valkey.asyncio.Valkey = valkey.asyncio.Valkey.from_url(
            url, socket_timeout=_VALKEY_SECONDS, socket_connect_timeout=_VALKEY_SECONDS
        )
        # Values are always bytes, even if the URL asks for decoded responses.
        self._client.connection_pool.connection_kwargs["decode_responses"] = False
        self.l1 = L1(entries)
        self.l2 = L2(self._client, f"escala:{project}")
        self._listener = Listener(self._client, self.l2.channel, self.l1)
        self.loads: dict[str, Load] = {}
        self.counts: Counter[str] = Counter()
        """The number of lookups that each source answered: l1, l2, loader."""

    @property
    def connected(self) -> bool:
        """Whether Valkey answers. While it does not, lookups go straight to the loader."""
        return self.l1.on

    async def open(self) -> None:
        await self._listener.start()

    async def close(self) -> None:
        await self._listener.stop()
        await self._client.aclose()

    async def invalidate(self, tags: Sequence[str]) -> None:
        """Invalidate every value that has any of `tags`.

        Raises CacheUnavailable if Valkey does not accept the invalidation after several tries.
        """
        for _ in range(_INVALIDATE_TRIES):
            try:
                await self.l2.invalidate(tags)
            except UNREACHABLE as error:
                failure = error
                await asyncio.sleep(0.1)
            else:
                self.l1.invalidate(tags)
                return
        raise CacheUnavailable(f"the invalidation of {', '.join(tags)}") from failure


slot: ConnectionHolder[CacheSystem] = ConnectionHolder("the cache")
