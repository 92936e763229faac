"""What is different between two configurations, key by key."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from escala.config.config import Config

_RESTART = ("project.", "engines.", "auth.issuer", "auth.audience", "cache.", "gateway.bind", "gateway.admin")
_RESTART_TLS = ("gateway.tls.redirect", "gateway.access_log.")
_OF_REPLICAS = (
    "app", "command", "tasks", "ports", "environment", "start_timeout", "stop_timeout", "concurrency", "access_log",
)  # fmt: skip

_TOLD_TO_REPLICAS = ("public", "max_body", "to")


@dataclass(frozen=True)
class Change:
    """A value that is not what it was; None where it is not there."""

    key: str
    """Such as services.web.routes[/data].timeout"""
    before: str | None
    after: str | None
    later: bool
    """Whether it takes (full) effect only when the project, or the service's replicas, are started again."""


def difference(old: Config, new: Config) -> list[Change]:
    """Return what an `apply` of `new` over a running `old` changes, in the order of the keys."""
    before, after = dict(_flat(old)), dict(_flat(new))
    keys = sorted(before.keys() | after.keys())
    fresh = old.services.keys() ^ new.services.keys()  # come or go as a whole, at once
    return [
        Change(key, before.get(key), after.get(key), _later(key, fresh))
        for key in keys
        if before.get(key) != after.get(key)
    ]


def _later(key: str, fresh: set[str]) -> bool:
    if key.startswith((*_RESTART, *_RESTART_TLS)):
        return True
    section, _, rest = key.partition(".")
    service, _, option = rest.partition(".")
    if section != "services" or service in fresh:
        return False
    # A replica that verifies tokens too knows from its start which paths are public, and how large a body may be.
    told = option.startswith("routes[") and option.rpartition(".")[2] in _TOLD_TO_REPLICAS
    return told or option.split(".")[0] in (*_OF_REPLICAS, *_TOLD_TO_REPLICAS)


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
