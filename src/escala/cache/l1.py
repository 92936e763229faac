"""L1: the cache level in the process, bounded by entries and bytes.

What is evicted is decided by S3-FIFO (Yang and others, "FIFO queues are all you need for cache eviction", SOSP 2023).
New entries pass through a small queue, so what is asked for once leaves soon. What was asked for again goes on to the
main queue, and so does what comes back soon after it was evicted. A hit only counts, it moves nothing.
"""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from escala.cache.counts import Counts

_REMEMBERED = 10_000
"""How many invalidated tags and keys are remembered for the sake of loads in progress."""
_SMALL_PART = 0.1
MAX_HITS = 3
OVERHEAD = 700
"""Bytes that an entry takes beside its value, its key and its tags, about: its places in the tables (measured)."""


class Entry:
    """A value in L1. `payload` is set if each caller gets a copy of its own, decoded from it.

    `refresh_at` is when a new value is to be loaded. The value is fresh until `fresh_until`. It may be returned until
    `stale_until` while a new one is loaded, and until `error_until` if that fails. All are times of time.monotonic().
    """

    __slots__ = (
        "call",
        "counts",
        "decode",
        "error_until",
        "field",
        "fresh_until",
        "hits",
        "home",
        "in_main",
        "key",
        "payload",
        "refresh_at",
        "stale_until",
        "tags",
        "value",
        "weight",
    )

    def __init__(
        self,
        key: str,
        tags: tuple[str, ...],
        value: Any,
        payload: bytes | None,
        decode: Callable[[bytes], Any],
        weight: int,
        counts: Counts,
        field: str = "",
    ) -> None:
        self.key = key
        self.tags = tags
        self.value = value
        self.payload = payload
        self.decode = decode
        self.weight = weight + OVERHEAD + len(key) + sum(map(len, tags))
        self.counts = counts
        self.field = field
        """The declared type of the value, as in `l2.Address`."""
        self.refresh_at = self.fresh_until = self.stale_until = self.error_until = math.inf
        self.hits = 0
        self.in_main = False
        self.home: L1 | None = None
        self.call: Hashable | None = None
        """The key under which `L1.calls` has this entry."""

    @property
    def usable_until(self) -> float:
        return max(self.fresh_until, self.stale_until, self.error_until)

    def read(self) -> Any:
        return self.value if self.payload is None else self.decode(self.payload)


class L1:
    """Holds at most `size` entries of at most `room` bytes together. It starts switched off.

    It belongs to one event loop; other threads may only read `calls`. Invalidations are numbered; a ticket is such a
    number. `trusted_until` is how long entries may be returned without news from Valkey.
    """

    def __init__(self, size: int, room: int, calls: dict[Hashable, Entry] | None = None) -> None:
        self._size = size
        self._room = room
        self._entries: dict[str, Entry] = {}
        self._small: deque[str] = deque()
        self._main: deque[str] = deque()
        """Keys, the oldest first. Those of dropped entries stay until it is their turn."""
        self._small_count = 0
        self._ghosts: set[int] = set()
        self._ghost_queue: deque[int] = deque()
        """Hashes of keys that were evicted from the small queue a short while ago."""
        self._keys_of: defaultdict[str, set[str]] = defaultdict(set)
        self._invalidated: dict[str, int] = {}
        self._now = 0
        self._floor = 0
        self.calls: dict[Hashable, Entry] = {} if calls is None else calls
        """Entries by the arguments of a call, where these need no encoding to be told apart."""
        self.bytes = 0
        self.evictions = 0
        self.on = False
        self.trusted_until = -math.inf

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def largest(self) -> int:
        """The number of bytes above which a value is not kept."""
        return self._room // 8

    def ticket(self) -> int:
        """Return the number of the latest invalidation. Take a ticket before loading a value, and pass it to `put`."""
        return self._now

    def get(self, key: str) -> Entry | None:
        """Return the entry, fresh or not. An entry that may no longer be returned at all is dropped."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.usable_until <= time.monotonic():
            self._drop(entry)
            return None
        if entry.hits < MAX_HITS:
            entry.hits += 1
        return entry

    def put(self, entry: Entry, ticket: int) -> bool:
        """Keep `entry` unless its key or a tag of it was invalidated after `ticket`; return whether it was kept."""
        if not self.on or not self._size or not self.is_current((entry.key, *entry.tags), ticket):
            return False
        if entry.weight > self.largest + OVERHEAD:
            return False
        if old := self._entries.get(entry.key):
            self._drop(old)
        self._entries[entry.key] = entry
        entry.home = self
        for tag in entry.tags:
            self._keys_of[tag].add(entry.key)
        self.bytes += entry.weight
        if hash(entry.key) in self._ghosts:
            self._ghosts.discard(hash(entry.key))
            self._to_main(entry)
        else:
            self._small_count += 1
            self._append(self._small, entry.key)
        while len(self._entries) > self._size or self.bytes > self._room:
            self._evict()
        return True

    def remember_call(self, call: Hashable, entry: Entry) -> None:
        """Let `calls` lead to an entry until it is dropped. Of several calls with one entry, the last is remembered."""
        if self._entries.get(entry.key) is entry:
            if entry.call is not None:
                self.calls.pop(entry.call, None)
            entry.call = call
            self.calls[call] = entry

    def is_current(self, names: Iterable[str], ticket: int) -> bool:
        """Return whether a value loaded from `ticket` on is still valid: none of its names was invalidated since."""
        return ticket >= self._floor and all(self._invalidated.get(name, 0) <= ticket for name in names)

    def invalidate(self, names: Iterable[str]) -> None:
        """Drop the entries with any of these keys and tags. Loads that began before now will be refused."""
        self._now += 1
        for name in names:
            self._invalidated[name] = self._now
            if entry := self._entries.get(name):
                self._drop(entry)
            for key in tuple(self._keys_of.get(name, ())):
                self._drop(self._entries[key])
        if len(self._invalidated) > _REMEMBERED:  # forget all, and refuse all loads in progress
            self._invalidated.clear()
            self._floor = self._now

    def switch_on(self) -> None:
        """Switch on, without entries. A value whose load began before this call is refused."""
        self.switch_off()
        self.on = True

    def switch_off(self) -> None:
        """Drop all entries, and store none until switched on again."""
        self._now += 1
        self._floor = self._now
        for entry in self._entries.values():
            _end(entry)
        self._entries.clear()
        self._keys_of.clear()
        self._invalidated.clear()
        self.calls.clear()
        for queue in (self._small, self._main, self._ghosts, self._ghost_queue):
            queue.clear()
        self._small_count = self.bytes = 0
        self.on = False
        self.trusted_until = -math.inf

    def _evict(self) -> None:
        """Take the oldest entry of a queue. It stays, further back, if it was asked for since it came there."""
        in_main = self._small_count <= max(1, self._size * _SMALL_PART) and self._small_count < len(self._entries)
        key = (self._main if in_main else self._small).popleft()
        entry = self._entries.get(key)
        if entry is None or entry.in_main != in_main:
            return
        if entry.hits:
            entry.hits = entry.hits - 1 if in_main else 0
            self._small_count -= not in_main
            self._to_main(entry)
            return
        if not in_main:
            self._ghosts.add(hash(key))
            self._ghost_queue.append(hash(key))
            if len(self._ghost_queue) > self._size:
                self._ghosts.discard(self._ghost_queue.popleft())
        self.evictions += 1
        self._drop(entry)

    def _to_main(self, entry: Entry) -> None:
        entry.in_main = True
        self._append(self._main, entry.key)

    def _append(self, queue: deque[str], key: str) -> None:
        queue.append(key)
        if len(queue) > 2 * len(self._entries) + 100:  # most of it are keys of dropped entries
            in_main = queue is self._main
            left = [
                key for key in dict.fromkeys(queue) if key in self._entries and self._entries[key].in_main == in_main
            ]
            queue.clear()
            queue.extend(left)

    def _drop(self, entry: Entry) -> None:
        del self._entries[entry.key]
        self._small_count -= not entry.in_main
        self.bytes -= entry.weight
        if entry.call is not None:
            self.calls.pop(entry.call, None)
        for tag in entry.tags:
            keys = self._keys_of[tag]
            keys.discard(entry.key)
            if not keys:
                del self._keys_of[tag]
        _end(entry)


def _end(entry: Entry) -> None:
    """Let nobody who has found a dropped entry in `calls` take it for a fresh one."""
    entry.home = None
    entry.refresh_at = -math.inf
