"""Ids of jobs: UUIDs of version 7 (RFC 9562), in the order of their making, which keeps indexes and pages in order."""

import time
import uuid
from os import urandom

_RANDOM_BITS = 62
_PER_MILLISECOND = 4096
"""The twelve bits after the milliseconds hold their fraction (RFC 9562, section 6.2, method 3)."""


class _Ids:
    def __init__(self) -> None:
        self._latest = 0

    def next(self) -> uuid.UUID:
        moment = time.time_ns() * _PER_MILLISECOND // 1_000_000
        if moment <= self._latest:
            moment = self._latest + 1
        self._latest = moment
        milliseconds, fraction = divmod(moment, _PER_MILLISECOND)
        random = int.from_bytes(urandom(8)) >> (64 - _RANDOM_BITS)
        return uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0x2 << 62 | random)


_ids = _Ids()


def new_id() -> uuid.UUID:
    """Return an id that is greater than those before it in this process, and cannot be guessed."""
    return _ids.next()
