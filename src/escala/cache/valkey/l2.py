"""L2: the level that all replicas share, in Valkey.

Every tag has a *generation*: a random value under a key of its own. An entry stores the generations that its tags had
before its value was loaded. The entry is valid while the tags still have those generations. Invalidating a tag gives it
a new generation. That is one write, however many entries have the tag. A value whose load began before that write can
never be served again. If Valkey evicts or loses a generation, the tag gets a new one, so its entries become invalid.

An entry is a hash with a field for each type of value (`Codec.fingerprint`), so that the versions of a rolling deploy
do not overwrite each other's values. A field holds, big-endian: until when it may be used and until when it is fresh
(8 octets each, milliseconds since the epoch by Valkey's clock), how long it is fresh in all (4 octets, milliseconds),
the number of tags (1 octet), their generations (8 octets each), an octet that says whether the rest is compressed, and
the value in MessagePack.

A *lock* gives one process the right to load an entry. Its token is the fence: only its holder may write the entry.
"""

import os
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from escala.cache.policy import MAX_LIFE
from escala.cache.valkey.link import Link, message
from escala.cache.valkey.wire import Wire

LOCK_SECONDS = 3.0
"""How long a lock is held after its holder was last heard of."""
_GENERATION_SECONDS = int(7 * MAX_LIFE)
_HEAD = struct.Struct(">QQIB")
MOST_TAGS = 250
"""How many tags an entry may have."""
_GENERATION = 8
_PLAIN, _ZLIB = b"\0", b"\1"


def tag_name(cache: str, tag: str | None = None) -> str:
    """Return the full name of a tag; without one, of the tag that all entries of a cache have."""
    return f"t:{cache}" if tag is None else f"t:{cache}:{tag}"


def entry_name(key: str) -> str:
    """Return the full name of an entry. Its key begins with the cache's name."""
    return f"e:{key}"


class Address(NamedTuple):
    """Where an entry is: its name, its tags, and the field for the declared type of value.

    `listed` tells that the tags are stored with the entry, because who reads it does not know them.
    """

    name: str
    tags: tuple[str, ...]
    field: str
    listed: bool = False


class Found(NamedTuple):
    """An entry that was read."""

    payload: bytes
    fresh_left: float
    """Seconds for which it is still fresh; negative if it is not."""
    lifetime: float
    """Seconds for which it was fresh at first."""
    tags: tuple[str, ...]


class Right(NamedTuple):
    """The right to load an entry, and the generations from before the load. `found` is an entry that is there now."""

    token: bytes
    generations: tuple[bytes, ...]
    found: Found | None


class L2:
    """Raises one of `wire.FAILURES` where Valkey does not answer or refuses a command."""

    def __init__(self, link: Link, prefix: str, compress_from: int, largest: int) -> None:
        self._link = link
        self._prefix = prefix.encode()
        self._compress_from = compress_from
        self.largest = largest

    @property
    def available(self) -> bool:
        return self._link.wire is not None

    async def read(self, address: Address) -> Found | None:
        """Return the entry if it is readable, current and not expired."""
        if address.listed:
            stored, names, *generations = await self._wire.run(
                "read", [self._key(address.name)], self._prefix, address.field
            )
            return self._open(stored, generations, _names(names))
        stored, generations = await self._wire.calls(
            ("HGET", self._key(address.name), address.field), ("MGET", *map(self._key, address.tags))
        )
        return self._open(stored, generations, address.tags)

    async def begin(self, address: Address) -> Right | float:
        """Take the right to load an entry; return it, or the number of seconds for which another process has it."""
        token = os.urandom(16)
        won, *rest = await self._wire.run(
            "begin",
            [self._lock(address.name), *map(self._key, (address.name, *address.tags))],
            token,
            int(LOCK_SECONDS * 1000),
            os.urandom(_GENERATION),
            _GENERATION_SECONDS,
            address.field,
        )
        if not won:
            return max(0.0, int(rest[0]) / 1000)
        stored, *generations = rest
        return Right(token, tuple(generations), self._open(stored, generations, address.tags))

    async def renew(self, name: str, right: Right) -> bool:
        """Keep a right for another LOCK_SECONDS; return whether it was still held."""
        keys = [self._lock(name)]
        return bool(await self._wire.run("renew", keys, right.token, int(LOCK_SECONDS * 1000)))

    async def release(self, name: str, right: Right) -> None:
        """Give a right back without a value."""
        told = message(released=[name])
        await self._wire.run("release", [self._lock(name)], right.token, self._link.channel, told)

    async def write(
        self, address: Address, payload: bytes, fresh: float, extra: float = 0.0, right: Right | None = None
    ) -> bool:
        """Store a value that is fresh for `fresh` seconds, for `extra` seconds more; return whether it was stored.

        With a `right`, the value is stored if the right is still held. Without one, it is stored in any case, and no
        load in progress may overwrite it.
        """
        now = self._link.server_time()
        return bool(
            await self._wire.run(
                "write",
                [self._lock(address.name), *map(self._key, (address.name, *address.tags))],
                right.token if right else b"",
                address.field,
                _HEAD.pack(
                    int((now + fresh + extra) * 1000), int((now + fresh) * 1000), int(fresh * 1000), len(address.tags)
                ),
                self._body(payload),
                max(1, int((fresh + extra) * 1000)),
                os.urandom(_GENERATION),
                _GENERATION_SECONDS,
                msgspec.json.encode(address.tags) if address.listed else b"",
                *(right.generations if right else ()),
            )
        )

    async def invalidate(self, tags: Sequence[str], names: Sequence[str] = ()) -> None:
        """Give `tags` new generations and delete the entries `names`, in one step. Every process is told."""
        keys = [*map(self._key, tags), *map(self._key, names), *map(self._lock, names)]
        await self._wire.run(
            "invalidate",
            keys,
            len(tags),
            len(names),
            os.urandom(_GENERATION),
            _GENERATION_SECONDS,
            self._link.channel,
            message(invalidated=[*tags, *names]),
        )

    @property
    def _wire(self) -> Wire:
        if self._link.wire is None:
            raise ConnectionError("not connected")
        return self._link.wire

    def is_oversized(self, payload: bytes) -> bool:
        """Whether a value is too large to be stored."""
        return len(payload) > self.largest and len(self._body(payload)) > self.largest

    def _body(self, payload: bytes) -> bytes:
        if len(payload) >= self._compress_from:
            compressed = zlib.compress(payload, 1)
            if len(compressed) < len(payload):
                return _ZLIB + compressed
        return _PLAIN + payload

    def _open(self, stored: object, generations: Sequence[bytes | None], tags: tuple[str, ...]) -> Found | None:
        """Return what is stored in an entry's field; None if it is not valid, or was not written by this version."""
        if not isinstance(stored, bytes):
            return None
        field = read_field(stored)
        now = self._link.server_time()
        if field.payload is None or field.usable_until <= now or field.generations != generations:
            return None
        return Found(field.payload, field.fresh_until - now, field.lifetime, tags)

    def _key(self, name: str) -> bytes:
        return self._prefix + _encoded(name)

    def _lock(self, name: str) -> bytes:
        return self._prefix + b"l:" + _encoded(name)


class Field(NamedTuple):
    """What a field of an entry holds. Times are seconds since the epoch by Valkey's clock, or seconds."""

    usable_until: float
    fresh_until: float
    lifetime: float
    generations: list[bytes]
    payload: bytes | None
    """The value; None if the field was not written by this version."""


def read_field(stored: bytes) -> Field:
    if len(stored) < _HEAD.size:
        return Field(0.0, 0.0, 0.0, [], None)
    usable, fresh, lifetime, count = _HEAD.unpack_from(stored)
    start = _HEAD.size + count * _GENERATION
    generations = [stored[place : place + _GENERATION] for place in range(_HEAD.size, start, _GENERATION)]
    return Field(usable / 1000, fresh / 1000, lifetime / 1000, generations, _unpacked(stored[start:]))


def _unpacked(body: bytes) -> bytes | None:
    if body[:1] == _PLAIN:
        return body[1:]
    if body[:1] == _ZLIB:
        try:
            return zlib.decompress(body[1:])
        except zlib.error:
            return None
    return None


def _names(listed: bytes | None) -> tuple[str, ...]:
    try:
        return msgspec.json.decode(listed or b"", type=tuple[str, ...])
    except msgspec.MsgspecError:
        return ()


def _encoded(name: str) -> bytes:
    return name.encode()
