"""L2: the level that all replicas share, in Valkey.

Every tag has a *generation*: a random value under a key of its own. An entry stores the generations that its tags had
before its value was loaded. The entry is valid while the tags still have those generations. Invalidating a tag gives it
a new generation. That is one write, however many entries have the tag. A value whose load began before that write can
never be served again. If Valkey evicts or loses a generation, the tag gets a new one, so its entries become invalid.
"""

import time
import uuid
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import valkey.asyncio

_GENERATION_SECONDS = 7 * 86400
"""How long a generation is kept. It must be longer than MAX_TTL."""

MAX_TTL = 86400.0
"""The maximum lifetime of an entry, in seconds."""


class Stored(msgspec.Struct, array_like=True):
    expires: float
    """Seconds since the epoch."""
    generations: list[bytes]
    payload: bytes


class Reading(NamedTuple):
    """The result of a read, with the generations that a following write must pass."""

    payload: bytes | None
    seconds_left: float
    generations: list[bytes]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Stored)


class L2:
    def __init__(self, client: valkey.asyncio.Valkey, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self.channel = f"{prefix}:invalidated"

    async def read(self, key: str, tags: Sequence[str]) -> Reading:
        """Return the tags' generations, and the entry if it is readable, current and not expired."""
        stored, *generations = await self._client.mget(self._entry(key), *map(self._tag, tags))
        if None in generations:
            generations = await self._begin(tags)
        elif stored is not None:
            entry = self._decode(stored)
            if entry is not None and entry.generations == generations:
                left = entry.expires - time.time()
                if left > 0:
                    return Reading(entry.payload, left, generations)
        return Reading(None, 0.0, generations)

    async def write(self, key: str, payload: bytes, generations: list[bytes], ttl: float) -> None:
        stored = _encoder.encode(Stored(time.time() + ttl, generations, payload))
        await self._client.set(self._entry(key), stored, px=max(1, int(ttl * 1000)))

    async def invalidate(self, tags: Sequence[str]) -> None:
        """Give `tags` new generations and notify every replica, in one transaction."""
        async with self._client.pipeline(transaction=True) as pipeline:
            for tag in tags:
                pipeline.set(self._tag(tag), uuid.uuid4().bytes, ex=_GENERATION_SECONDS)
            pipeline.publish(self.channel, _encoder.encode(list(tags)))
            await pipeline.execute()

    async def _begin(self, tags: Sequence[str]) -> list[bytes]:
        """Return the generations of `tags`; create those that are missing."""
        async with self._client.pipeline(transaction=True) as pipeline:
            for tag in tags:
                pipeline.set(self._tag(tag), uuid.uuid4().bytes, ex=_GENERATION_SECONDS, nx=True)
            pipeline.mget(*map(self._tag, tags))
            *_, generations = await pipeline.execute()
        return list(generations)

    def _decode(self, stored: bytes) -> Stored | None:
        try:
            return _decoder.decode(stored)
        except msgspec.MsgspecError:
            return None

    def _entry(self, key: str) -> str:
        return f"{self._prefix}:e:{key}"

    def _tag(self, tag: str) -> str:
        return f"{self._prefix}:t:{tag}"
