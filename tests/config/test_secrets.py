"""Secrets are marked once, and shown nowhere."""

from pathlib import Path

import pytest

from escala.config import Config, load
from escala.config.difference import difference
from escala.config.secrets import HIDDEN, is_secret
from escala.errors import ConfigError
from tests.support import minimal_config


def configured(password: str, variable: str) -> Config:
    return minimal_config(
        engines={
            "postgres": {"url": f"postgresql://shop:{password}@db/shop"},
            "valkey": {"url": f"valkey://:{password}@cache:6379/0"},
        },
        services={"web": {"app": "a:b", "environment": {"API_KEY": variable}, "timeout": "5s"}},
    )


def test_a_change_of_a_secret_is_told_without_it() -> None:
    changes = difference(configured("before-1", "before-2"), configured("after-1", "after-2"))
    assert [change.key for change in changes] == [
        "engines.postgres.url",
        "engines.valkey.url",
        "services.web.environment.API_KEY",
    ]
    assert all((change.before, change.after) == (HIDDEN, HIDDEN) for change in changes)


def test_a_secret_that_comes_is_not_told_either() -> None:
    (change,) = difference(
        minimal_config(services={"web": {"app": "a:b"}}),
        minimal_config(services={"web": {"app": "a:b", "environment": {"KEY": "hunter2"}}}),
    )
    assert (change.key, change.before, change.after) == ("services.web.environment.KEY", None, HIDDEN)


@pytest.mark.parametrize(
    "text",
    [
        "[services.web.environment]\nAPI_KEY = 12345678",
        "[services.web.environment]\nAPI_KEY = ['hunter2']",
        "[services.web]\nenvironment = 'hunter2'",
        "[services]\nother = ['hunter2']",
        "[engines.postgres]\nurl = 'mysql://user:hunter2@db/x'",
        "[engines.valkey]\nurl = ['hunter2']",
        "[engines]\npostgres = 'postgresql://hunter2@db'",
    ],
)
def test_a_wrong_value_is_not_shown_where_a_secret_stands(tmp_path: Path, text: str) -> None:
    file = tmp_path / "escala.toml"
    file.write_text(f"[project]\nname = 'x'\n[services.app]\napp = 'a:b'\n{text}")
    with pytest.raises(ConfigError) as raised:
        load(file, {})
    assert "hunter2" not in str(raised.value)
    assert "12345678" not in str(raised.value)


def test_what_is_no_secret_is_shown() -> None:
    assert not is_secret(Config, ("services", "web", "routes", 0, "path"))
    assert not is_secret(Config, ("gateway", "bind"))
    assert is_secret(Config, ("services", "web", "environment", "X"))
    assert is_secret(Config, ("engines", "postgres"))


def test_no_traceback_shows_one() -> None:
    assert "hunter2" not in repr(configured("hunter2", "hunter2"))
