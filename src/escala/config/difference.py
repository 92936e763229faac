"""The differences between two configurations, key by key."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from escala.config.config import Config
from escala.config.secrets import HIDDEN, is_secret
from escala.config.tls import TlsSettings
from escala.errors import ConfigError

_RESTART = ("project.", "engines.", "gateway.bind", "gateway.admin", "gateway.tls.redirect", "gateway.access_log.")
"""Keys whose changes take effect only when the whole project is restarted."""


@dataclass(frozen=True)
class Change:
    """A changed value; `before` or `after` is None if the key is not set there."""

    key: str
    """The key path, such as services.web.routes[/data].timeout"""
    before: str | None
    after: str | None
    later: bool
    """Whether the change takes effect only after a restart of the project."""


class _Value(NamedTuple):
    text: str
    secret: bool


def difference(old: Config, new: Config) -> list[Change]:
    """Return the changes that applying `new` to a running `old` makes, sorted by key; secrets are hidden."""
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
    """Return `wanted`, with the settings that only a restart changes as they are in `running`.

    Raises ConfigError if the two do not fit together.
    """
    gateway = _keep(wanted.gateway, running.gateway, "bind", "admin", "access_log")
    if gateway.tls is not None:
        before = running.gateway.tls
        kept = _keep(gateway.tls, before if before is not None else _without_redirect(gateway.tls), "redirect")
        gateway = _replace(gateway, tls=kept)
    config = _replace(_keep(wanted, running, "project", "engines"), gateway=gateway)
    problems = config.disagreements()
    if problems:
        raise ConfigError("escala.toml, with current values for what only a restart changes", problems)
    return config


Model = TypeVar("Model", bound=BaseModel)


def _without_redirect(tls: TlsSettings) -> TlsSettings:
    return TlsSettings.model_construct(certificates=tls.certificates)


def _keep(wanted: Model, running: Model, *names: str) -> Model:
    """Return `wanted` with some fields as in `running`, also in which of them were set."""
    kept = wanted.model_copy(update={name: getattr(running, name) for name in names})
    kept.model_fields_set.difference_update(set(names) - running.model_fields_set)
    return kept


def _replace(model: Model, **values: Any) -> Model:
    """Return a copy with other values, in which the same fields count as set."""
    replaced = model.model_copy(update=values)
    replaced.model_fields_set.intersection_update(model.model_fields_set)
    return replaced


def _flat(value: Any, key: str = "", place: tuple[int | str, ...] = ()) -> Iterator[tuple[str, _Value]]:
    """Yield key and value of every setting that is given; a route is identified by its path."""
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
