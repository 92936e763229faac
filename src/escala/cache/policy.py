"""How long values live, and what happens around a load: the options of `Cache` and of what it caches."""

import random
from dataclasses import dataclass, fields
from typing import Literal, TypedDict, get_args

from escala.units import parse_duration

Levels = Literal["both", "l1", "l2"]

MAX_LIFE = 86400.0
"""The maximum of `ttl` and `stale` together, in seconds."""


class Options(TypedDict, total=False):
    """The options of a cache, and of one cached function. Durations are texts such as "60s"."""

    ttl: str
    """How long a value is fresh: "60s" by default."""
    stale: str
    """How long after `ttl` a value may still be returned, while a new one is loaded in the background."""
    stale_if_error: str
    """How long after `ttl` a value may still be returned when loading a new one fails."""
    early: float
    """The part of `ttl` after which a value in use is loaded anew in the background: 0.8, say. By default never."""
    jitter: float
    """The part of `ttl` by which it is shortened at random, so that values do not expire together: 0.1 by default."""
    negative_ttl: str
    """How long None is kept: `ttl` by default."""
    errors: tuple[type[Exception], ...]
    """Exceptions of the loader that are kept, in this process, for `errors_ttl`. By default none is."""
    errors_ttl: str
    """How long such an exception is raised without a load: "1s" by default."""
    timeout: str
    """How long a load may take: "30s" by default. Then its callers get LoadTimedOut, and the next call loads anew."""
    soft_timeout: str
    """How long a caller waits for a new value when a stale one is there. By default it does not wait."""
    copy: bool
    """Whether each caller gets a copy of its own. By default, yes unless values of the type cannot be changed."""
    levels: Levels
    """"both"; "l1" for this process alone, without coherence; or "l2" for Valkey alone."""


@dataclass(frozen=True)
class Policy:
    """Checked options. Durations are seconds."""

    ttl: float = 60.0
    stale: float = 0.0
    stale_if_error: float = 0.0
    early: float = 1.0
    jitter: float = 0.1
    negative_ttl: float | None = None
    errors: tuple[type[Exception], ...] = ()
    errors_ttl: float = 1.0
    timeout: float = 30.0
    soft_timeout: float = 0.0
    copy: bool | None = None
    levels: Levels = "both"

    def with_options(self, options: Options) -> "Policy":
        """Return this policy with other options. Raises ValueError or TypeError for what no option can be."""
        known = {field.name for field in fields(self)}
        if unknown := sorted(set(options) - known):
            raise TypeError(f"unknown option {unknown[0]!r}; there are {', '.join(sorted(known))}")
        changed = {**vars(self), **{name: _checked(name, value) for name, value in options.items()}}
        policy = Policy(**changed)
        if policy.life > MAX_LIFE:
            raise ValueError("ttl and stale together are longer than a day")
        return policy

    @property
    def life(self) -> float:
        """How long an entry is kept at most."""
        return self.ttl + self.extra

    @property
    def extra(self) -> float:
        """How long an entry is kept after it has ceased to be fresh."""
        return max(self.stale, self.stale_if_error)

    @property
    def uses_l1(self) -> bool:
        return self.levels != "l2"

    @property
    def uses_l2(self) -> bool:
        return self.levels != "l1"

    def lifetime(self, value: object) -> float:
        """Return how long a value that was loaded now is fresh."""
        ttl = self.negative_ttl if value is None and self.negative_ttl is not None else self.ttl
        return ttl * (1 - self.jitter * random.random())  # noqa: S311 - it spreads load, and protects nothing


def _checked(name: str, value: object) -> object:
    if name in ("ttl", "stale", "stale_if_error", "negative_ttl", "errors_ttl", "timeout", "soft_timeout"):
        try:
            return parse_duration(value)
        except ValueError as error:
            raise ValueError(f"{name}={value!r}: {error}") from None
    if name == "early" and not (_is_number(value) and 0 < value <= 1):  # type: ignore[operator]
        raise ValueError(f"early={value!r}: expected a part of the ttl, more than 0 and at most 1")
    if name == "jitter" and not (_is_number(value) and 0 <= value < 1):  # type: ignore[operator]
        raise ValueError(f"jitter={value!r}: expected a part of the ttl, at least 0 and less than 1")
    if name == "levels" and value not in get_args(Levels):
        raise ValueError(f"levels={value!r}: expected one of {', '.join(get_args(Levels))}")
    if name == "copy" and not isinstance(value, bool):
        raise TypeError(f"copy={value!r}: expected True or False")
    if name == "errors":
        kinds = tuple(value) if isinstance(value, tuple | list | set) else (value,)
        if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
            raise TypeError(f"errors={value!r}: expected a tuple of exception classes")
        return kinds
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
