"""docs/escala.toml is the reference of all options, so it must load, name them all, and state their defaults."""

import tomllib
import typing
from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from escala.config import Config, load
from escala.config.balance import Balance, Capacity
from escala.config.config import Config as Root
from escala.config.policy import Policy
from escala.units import parse_duration, parse_size
from tests.support import REPOSITORY

FILE = REPOSITORY / "docs" / "escala.toml"


def options(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield every option with its default; a dict's keys are "*", a list's items "[]"."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        if prefix.startswith("services.") and (name in Policy.model_fields or field.annotation in (Balance, Capacity)):
            continue  # said once, for all places, under [gateway]
        inner = [a for a in (field.annotation, *typing.get_args(field.annotation)) if isinstance(a, type)]
        sections = [a for a in inner if issubclass(a, BaseModel)]
        if not sections:
            yield path, field.default
        for section in sections:
            origin = typing.get_origin(field.annotation)
            many = ".*." if origin is dict else "[]." if origin is tuple else "."
            yield from options(section, path + many)


def named(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield what the file names, in the same spelling."""
    assert isinstance(value, dict)
    for key, below in value.items():
        path = f"{prefix}{key}"
        if path == "services":
            for service in below.values():
                yield from named(service, "services.*.")
        elif isinstance(below, list) and below and isinstance(below[0], dict):
            yield from named(below[0], f"{path}[].")
        elif isinstance(below, dict) and key not in {"environment", "headers", "queues"}:
            yield from named(below, f"{path}.")
        else:
            yield path, below


def test_it_loads() -> None:
    config = load(FILE, {})
    assert isinstance(config, Config)
    assert set(config.services) == {"web", "node", "worker"}


def test_it_names_every_option() -> None:
    every = {path for path, _ in options(Root)}
    written = {path for path, _ in named(tomllib.loads(FILE.read_text()))}
    assert every == written - {"services.*.routes[].timeout"}  # shows that it may stand there


@pytest.mark.parametrize(
    "path",
    [
        "gateway.timeout",
        "gateway.max_body",
        "gateway.max_connections",
        "auth.access_ttl",
        "cache.entries",
        "engines.valkey.memory",
        "engines.postgres.shared_buffers",
        "gateway.idle_timeout",
        "gateway.balance.inflight",
        "gateway.balance.queue",
        "gateway.balance.queue_timeout",
        "gateway.balance.connect_timeout",
        "gateway.balance.retries",
        "gateway.access_log.segment",
        "gateway.access_log.age",
        "gateway.access_log.total",
        "gateway.cors.max_age",
        "gateway.rate_limits[].period",
        "auth.max_ttl",
        "auth.remember",
        "auth.remember_for",
        "auth.wrong_tokens",
        "services.*.drain_timeout",
        "services.*.protocol",
        "services.*.start_timeout",
        "services.*.stop_timeout",
        "services.*.concurrency",
        "services.*.threads",
        "gateway.max_head",
        "gateway.balance.websockets",
        "gateway.paths",
        "project.state",
    ],
)
def test_it_states_the_defaults(path: str) -> None:
    default = dict(options(Root))[path]
    written = dict(named(tomllib.loads(FILE.read_text())))[path]
    if isinstance(written, str) and written[0].isdigit():
        written = parse_size(written) if written.endswith("B") else parse_duration(written)
    assert written == default
