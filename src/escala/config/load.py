"""Loads escala.toml, with overrides first from the environment and then from the command line."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from escala.config.config import Config
from escala.config.explain import explain
from escala.errors import ConfigError, ProjectNotFound

FILE = "escala.toml"
PREFIX = "ESCALA_"


def find(start: Path) -> Path:
    """Return the escala.toml in `start` or the nearest folder above it."""
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return folder / FILE
    raise ProjectNotFound(start)


def load(file: Path, environ: Mapping[str, str], settings: Sequence[str] = ()) -> Config:
    """Load `file` into a Config.

    The variable `ESCALA_GATEWAY__BIND` overrides `gateway.bind`, and a setting "gateway.bind=:80" overrides both. If a
    value is not valid TOML, it is taken as a string. The ConfigError contains all errors that were found.
    """
    data = _read(file)
    problems: list[str] = []
    overrides = sorted(name for name in environ if name.startswith(PREFIX) and "__" in name)
    for name in overrides:
        keys = name.removeprefix(PREFIX).lower().split("__")
        _set(data, keys, _value(environ[name]), name, problems)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            problems.append(f"--set {setting}: expected KEY=VALUE, such as gateway.bind=127.0.0.1:9000")
            continue
        _set(data, key.strip().split("."), _value(text), f"--set {key}", problems)
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        problems += explain(error, Config)
    if problems:
        raise ConfigError(" with ".join([str(file), *overrides]), problems)
    return config


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(str(file), ["the file does not exist"]) from None
    except OSError as error:
        raise ConfigError(str(file), [f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError(str(file), [f"is not UTF-8 text (byte {error.start})"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(file), [f"is not valid TOML: {error}"]) from None


def _value(text: str) -> Any:
    """Parse `text` as a TOML value; if it is not one, return it as a string."""
    if "\n" in text:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _set(data: dict[str, Any], keys: list[str], value: Any, source: str, problems: list[str]) -> None:
    table = data
    for depth, key in enumerate(keys):
        name = next((known for known in table if known.replace("-", "_") == key), key)
        if depth == len(keys) - 1:
            table[name] = value
            return
        below = table.setdefault(name, {})
        if not isinstance(below, dict):
            problems.append(f"{source}: {'.'.join(keys[: depth + 1])} has a value, so it cannot be a table")
            return
        table = below
