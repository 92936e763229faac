import asyncio
from pathlib import Path

import psutil
import pytest
import valkey as valkey_client

from escala.engines import valkey_engine
from escala.errors import EngineMissing
from escala.project.layout import Layout
from tests.support import minimal_config, running_engine


@pytest.mark.parametrize("name", ["s", "a[x]b", "a*b", "a (copy); #1?"])
def test_it_is_a_cache_on_a_private_socket(folder: Path, name: str) -> None:
    layout = Layout(folder / name)
    layout.create()
    engine = valkey_engine(minimal_config(engines={"valkey": {"memory": "8MiB"}}), layout)
    with running_engine(engine) as process, valkey_client.Valkey.from_url(engine.url) as client:
        assert not psutil.Process(process.pid).net_connections("inet")
        settings = client.config_get("*")
        assert (settings["port"], settings["appendonly"], settings["save"]) == ("0", "no", "")
        assert (settings["maxmemory"], settings["maxmemory-policy"]) == (str(8 * 2**20), "allkeys-lru")
    assert not list(layout.run.glob("*.rdb"))


def test_without_the_wheel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("escala.engines.valkey.wheel_folder", lambda package: None)
    engine = valkey_engine(minimal_config(), Layout(folder))
    with pytest.raises(EngineMissing, match="pip install"):
        engine.process()


def test_an_external_one(valkey_url: str, folder: Path) -> None:
    engine = valkey_engine(minimal_config(engines={"valkey": {"url": valkey_url}}), Layout(folder))
    assert engine.process() is None
    asyncio.run(engine.probe())
    away = valkey_engine(minimal_config(engines={"valkey": {"url": "valkey://127.0.0.1:1"}}), Layout(folder))
    with pytest.raises(OSError, match=r"127\.0\.0\.1:1"):
        asyncio.run(away.probe())
