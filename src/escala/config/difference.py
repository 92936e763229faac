"""What is different between two configurations, key by key."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from escala.config.config import Config

_RESTART = ("project.", "engines.", "gateway.bind", "gateway.admin", "gateway.tls.redirect", "gateway.access_log.")
"""What only a restart of the whole project takes over."""


@dataclass(frozen=True)
class Change:
    """A value that is not what it was; None where it is not there."""

    key: str
    """Such as services.web.routes[/data].timeout"""
    before: str | None
    after: str | None
    later: bool
    """Whether it takes effect only when the project is started again."""


def difference(old: Config, new: Config) -> list[Change]:
    """Return what an `apply` of `new` over a running `old` changes, in the order of the keys."""
    before, after = dict(_flat(old)), dict(_flat(new))
    keys = sorted(before.keys() | after.keys())
    return [
        Change(key, before.get(key), after.get(key), key.startswith(_RESTART))
        for key in keys
        if before.get(key) != after.get(key)
    ]


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield key and value of everything that was set; a route is known by its path."""
    if isinstance(value, BaseModel):
        for name in sorted(value.model_fields_set):
            yield from _flat(getattr(value, name), f"{key}.{name}" if key else name)
    elif isinstance(value, dict):
        for name, below in value.items():
            yield from _flat(below, f"{key}.{name}")
    elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        for index, below in enumerate(value):
            yield from _flat(below, f"{key}[{getattr(below, 'path', index)}]")
    else:
        yield (
            key,
            str(value) if not isinstance(value, tuple) or hasattr(value, "_fields") else ", ".join(map(str, value)),
        )
