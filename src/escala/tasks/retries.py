"""How often a failed attempt is repeated, and after which pause."""

import random
from collections.abc import Mapping
from typing import NamedTuple

from escala.units import parse_duration

Retries = int | Mapping[type[BaseException], int]

DEFAULT = 3
_FIRST = "1s"
_LONGEST = "5m"
_JITTER = 0.25


class RetryPolicy(NamedTuple):
    by_exception: tuple[tuple[type[BaseException], int], ...]
    """How many failures are repeated, by class of exception. The first class that matches counts."""
    first: float
    """Seconds of the first pause; each further one is twice as long."""
    longest: float

    @classmethod
    def of(cls, retries: Retries, first: str = _FIRST, longest: str = _LONGEST) -> "RetryPolicy":
        """Raise ValueError for a negative number, or what is not a duration."""
        given = {BaseException: retries} if isinstance(retries, int) else dict(retries)
        for count in given.values():
            if count < 0:
                raise ValueError(f"retries must be 0 or more, not {count}")
        # A class comes before those that it is derived from, in whatever order they were given.
        order = sorted(given.items(), key=lambda each: -len(each[0].__mro__))
        return cls(tuple(order), parse_duration(first), parse_duration(longest))

    @property
    def most(self) -> int:
        return max((count for _, count in self.by_exception), default=0)

    def allowed(self, error: BaseException) -> int:
        """Return how many failures are repeated if the latest was `error`."""
        return next((count for kind, count in self.by_exception if isinstance(error, kind)), 0)

    def pause(self, failures: int) -> float:
        """Return the seconds until the next attempt, after `failures` failures before this one."""
        pause = min(self.longest, self.first * 2.0 ** min(failures, 60))
        return pause * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - it spreads load, and protects nothing
