"""What is different between two configurations, key by key."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel

from escala.config.config import Config
from escala.config.secrets import HIDDEN, is_secret
from escala.errors import ConfigError

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


class _Value(NamedTuple):
    text: str
    secret: bool


def difference(old: Config, new: Config) -> list[Change]:
    """Return what an `apply` of `new` over a running `old` changes, in the order of the keys; secrets are hidden."""
    before, after = dict(_flat(old)), dict(_flat(new))
    keys = sorted(before.keys() | after.keys())
    return [
        Change(key, _shown(before.get(key)), _shown(after.get(key)), key.startswith(_RESTART))
        for key in keys
        if before.get(key) != after.get(key)
    ]


def _shown(value: _Value | None) -> str | None:
    if value is None:
        return None
    return HIDDEN if value.secret else value.text


def without_restart(running: Config, wanted: Config) -> Config:
    """Return `wanted` with what only a restart takes over as it is in `running`; raise ConfigError where they clash."""
    gateway, before = wanted.gateway, running.gateway
    tls = gateway.tls
    if tls is not None:
        redirect = before.tls.redirect if before.tls is not None else None
        tls = tls.model_copy(update={"redirect": redirect})
    kept = {"bind": before.bind, "admin": before.admin, "access_log": before.access_log, "tls": tls}
    config = wanted.model_copy(
        update={
            "project": running.project,
            "engines": running.engines,
            "gateway": gateway.model_copy(update=kept),
        }
    )
    problems = config.disagreements()
    if problems:
        raise ConfigError("escala.toml, with what only a restart takes over as it runs now", problems)
    return config


def _flat(value: Any, key: str = "", place: tuple[int | str, ...] = ()) -> Iterator[tuple[str, _Value]]:
    """Yield key and value of everything that was set; a route is known by its path."""
    if isinstance(value, BaseModel):
        for name in sorted(value.model_fields_set):
            yield from _flat(getattr(value, name), f"{key}.{name}" if key else name, (*place, name))
    elif isinstance(value, dict):
        for name, below in value.items():
            yield from _flat(below, f"{key}.{name}", (*place, name))
    elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        for index, below in enumerate(value):
            yield from _flat(below, f"{key}[{getattr(below, 'path', index)}]", (*place, index))
    else:
        several = isinstance(value, tuple) and not hasattr(value, "_fields")
        text = ", ".join(map(str, value)) if several else str(value)
        yield key, _Value(text, is_secret(Config, place))
