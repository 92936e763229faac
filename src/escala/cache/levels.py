"""Both levels of one process, and which of them has what."""

import math
import time
from collections import defaultdict
from typing import Any

from escala.cache.counts import Counts
from escala.cache.l1 import L1, Entry
from escala.cache.request import Request, Stored, Ticket
from escala.cache.valkey.l2 import L2, Found
from escala.cache.valkey.wire import FAILURES
from escala.errors import NoValkey

DEGRADED_SECONDS = 1.0
"""How long a value lives in L1 while Valkey is unavailable."""
_DECODED = 4
"""How much larger than its MessagePack a decoded value is in memory, about (measured)."""


class Levels:
    def __init__(self, entries: int, room: int, l2: L2 | None) -> None:
        self.calls: dict[Any, Entry] = {}
        """The entries of both L1, by the arguments of calls: see `L1.calls`."""
        self.shared = L1(entries, room, self.calls)
        """L1 of what is in Valkey too. It is on while the link is up."""
        self.alone = L1(entries, room, self.calls)
        """L1 of what is nowhere else: caches of the level "l1", and what was loaded while the link is down."""
        self.l2 = l2
        self.counts: defaultdict[str, Counts] = defaultdict(Counts)

    def l2_of(self, request: Request) -> L2 | None:
        """Return L2 if the request uses it. Raises NoValkey if there is none."""
        return self.required_l2(request.cache) if request.policy.uses_l2 else None

    def required_l2(self, cache: str) -> L2:
        if self.l2 is None:
            raise NoValkey(cache)
        return self.l2

    def home(self, request: Request) -> L1:
        return self.shared if request.policy.uses_l2 and self.shared.on else self.alone

    def ticket(self, request: Request) -> Ticket:
        home = self.home(request)
        return Ticket(home, home.ticket())

    def in_l1(self, request: Request) -> Entry | None:
        """Return the entry of L1, fresh or not."""
        if not request.policy.uses_l1:
            return None
        home = self.home(request)
        if time.monotonic() >= home.trusted_until:
            return None
        entry = home.get(request.address.name)
        if entry is None or entry.field != request.address.field:
            return None
        # Two calls share an entry with the tags of one of them if `key` leaves out what the tags are made of.
        return entry if request.address.listed or entry.tags == request.address.tags else None

    async def in_l2(self, request: Request, l2: L2) -> Stored | None:
        """Return what Valkey has, fresh or not; None if it does not answer, too."""
        ticket = self.ticket(request)
        try:
            found = await l2.read(request.address)
        except FAILURES:
            return None
        return self.stored(request, found, ticket) if found is not None else None

    def stored(self, request: Request, found: Found, ticket: Ticket) -> Stored | None:
        """Keep what was found in Valkey. What this version cannot read is a miss."""
        try:
            value = request.codec.decode(found.payload)
        except (ValueError, TypeError, LookupError, ArithmeticError):  # those of msgspec and pydantic are ValueErrors
            return None
        entry = self.keep(request, found.tags, found.payload, value, found.fresh_left, found.lifetime, ticket)
        return Stored(entry, value, "l2", found.payload) if time.monotonic() < entry.usable_until else None

    def keep(
        self,
        request: Request,
        tags: tuple[str, ...],
        payload: bytes,
        value: Any,
        fresh: float,
        lifetime: float,
        ticket: Ticket,
    ) -> Entry:
        """Return an entry with a value that is fresh for `fresh` of `lifetime` seconds; put it into L1 if wanted.

        The value itself is kept only if callers may share it.
        """
        policy, codec = request.policy, request.codec
        copied = request.copied
        entry = Entry(
            request.address.name,
            tags,
            None if copied else value,
            payload if copied else None,
            codec.decode,
            len(payload) if copied or codec.immutable else len(payload) * _DECODED,
            self.counts[request.cache],
            request.address.field,
        )
        now = time.monotonic()
        entry.fresh_until = until = now + fresh
        # One float for all of them where they are the same saves a tenth of the entry's memory.
        entry.stale_until = until + policy.stale if policy.stale else until
        entry.error_until = until + policy.stale_if_error if policy.stale_if_error else until
        entry.refresh_at = until - lifetime * (1 - policy.early) if policy.early < 1 else until
        if policy.uses_l2 and ticket.l1 is self.alone:
            entry.fresh_until = entry.stale_until = entry.error_until = min(until, now + DEGRADED_SECONDS)
            entry.refresh_at = min(entry.refresh_at, entry.fresh_until)
        if policy.uses_l1:
            ticket.l1.put(entry, ticket.number)
        return entry

    def invalidate(self, names: list[str]) -> None:
        """Drop entries from L1 by their names and tags."""
        for l1 in (self.shared, self.alone):
            l1.invalidate(names)

    def begin(self) -> None:
        self.alone.switch_on()
        self.alone.trusted_until = math.inf

    def end(self) -> None:
        self.shared.switch_off()
        self.alone.switch_off()
