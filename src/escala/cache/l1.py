"""L1: the cache level in the process. A dict with expiry and tags, which also remembers recent invalidations."""

import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

_REMEMBERED_TAGS = 10_000


class Entry(NamedTuple):
    value: Any
    expires: float
    """The expiry, on the clock of time.monotonic()."""
    tags: tuple[str, ...]


class L1:
    """Holds at most `size` entries and drops the least recently used one first. It starts switched off.

    Not thread-safe: it belongs to one event loop. Invalidations are numbered; a ticket is such a number.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._keys_of: defaultdict[str, set[str]] = defaultdict(set)
        self._invalidated: dict[str, int] = {}
        self._now = 0
        self._floor = 0
        self.on = False

    def __len__(self) -> int:
        return len(self._entries)

    def ticket(self) -> int:
        """Return the number of the latest invalidation. Take a ticket before loading a value, and pass it to `put`."""
        return self._now

    def get(self, key: str) -> Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= time.monotonic():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: str, entry: Entry, ticket: int) -> bool:
        """Keep `entry` unless one of its tags was invalidated after `ticket`; return whether it was kept."""
        if not self.on or not self._size or not self.is_current(entry.tags, ticket):
            return False
        self._drop(key)
        self._entries[key] = entry
        for tag in entry.tags:
            self._keys_of[tag].add(key)
        if len(self._entries) > self._size:
            self._drop(next(iter(self._entries)))
        return True

    def is_current(self, tags: Iterable[str], ticket: int) -> bool:
        """Return whether a value loaded from `ticket` on is still valid: no tag of it was invalidated since."""
        return ticket >= self._floor and all(self._invalidated.get(tag, 0) <= ticket for tag in tags)

    def invalidate(self, tags: Iterable[str]) -> None:
        """Drop the entries with any of `tags`. Loads of such entries that began before now will be refused."""
        self._now += 1
        for tag in tags:
            self._invalidated[tag] = self._now
            for key in tuple(self._keys_of.get(tag, ())):
                self._drop(key)
        if len(self._invalidated) > _REMEMBERED_TAGS:  # forget all, and refuse all loads in progress
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
        self._entries.clear()
        self._keys_of.clear()
        self._invalidated.clear()
        self.on = False

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        for tag in entry.tags:
            keys = self._keys_of[tag]
            keys.discard(key)
            if not keys:
                del self._keys_of[tag]
