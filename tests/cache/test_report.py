"""What processes say of their caches, and what people see of it."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from escala.cache import Cache, CacheSystem
from escala.cache.valkey import report
from escala.errors import CacheUnavailable
from tests.cache.systems import acting_as, client, system
from tests.support import eventually, write

things = Cache("things", jitter=0)
PROJECT = """
    [project]
    name = "tests"
    [engines.valkey]
    url = "{url}"
    [services.web]
    app = "web:app"
"""


@things.cached(tags=["n:{number}"])
async def load(number: int) -> dict[str, int]:
    return {"number": number}


async def reports(url: str) -> list[report.Report]:
    async with report.connection(url, "tests", "reading") as wire:
        return await report.read(wire, "tests")


async def test_processes_report(connected: CacheSystem, valkey_url: str) -> None:
    async with system(valkey_url) as other:
        for made in (connected, other):
            with acting_as(made):
                await load(1)
                await load(1)

        async def both() -> bool:
            return len(await reports(valkey_url)) == 2

        await eventually(both, "both have reported", 10)
        counts = report.total(await reports(valkey_url))["things"]
        assert (counts.loads, counts.loader, counts.l1 + counts.l2) == (1, 1, 3)
        text = report.exposition(await reports(valkey_url))
        assert 'escala_cache_loads_total{replica="' in text
        assert text.count("# TYPE") == len({line.split("{")[0] for line in text.splitlines() if "{" in line})
    assert len(await reports(valkey_url)) == 1  # who ends takes its report along


async def test_reports_of_the_dead_and_rubbish_are_left_out(valkey_url: str) -> None:
    async with client(valkey_url) as person:
        await person.hset("escala:{tests}:reports", "rubbish", b"\xc1")
        old = report.Report(replica="old", at=1.0, entries=0, bytes=0, evictions=0, caches={})
        await person.hset("escala:{tests}:reports", "old", report._encoder.encode(old))
        assert await reports(valkey_url) == []
        assert await person.hkeys("escala:{tests}:reports") == [b"rubbish"]


async def test_no_valkey() -> None:
    with pytest.raises(CacheUnavailable, match=r"reading failed \(Valkey: "):
        await reports("unix:///nowhere/valkey.sock")


async def escala(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "escala", "cache", *words, "--file", str(folder / "escala.toml")]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


async def test_the_commands(connected: CacheSystem, valkey_url: str, folder: Path) -> None:
    write(folder, escala__toml=PROJECT.format(url=valkey_url), web__py="app = None")
    assert await escala(folder, "stats") == "no running process has used a cache yet\n"
    await load(1)
    await things.set("a*b", {"x": 1.5}, tags=["t"])

    async def reported() -> bool:
        return bool(await reports(valkey_url))

    await eventually(reported, "it is reported", 10)
    assert "things" in await escala(folder, "stats")
    assert json.loads(await escala(folder, "stats", "--json"))[0]["caches"]["things"]["loads"] == 1
    assert set((await escala(folder, "keys", "things")).splitlines()) == {load.key(1), "things:=a*b"}
    assert '{"number":1}' in await escala(folder, "get", load.key(1))
    assert await escala(folder, "get", "things:=a*b", "--json") == '{"x":1.5}\n'
    assert "the values with t of things are invalid" in await escala(folder, "clear", "things", "--tag", "t")

    async def gone() -> bool:
        return await things.get("a*b") is None

    await eventually(gone, "the news of it arrives", 2)
    assert (await load.lookup(1)).source != "loader"
    assert "all values of things are invalid" in await escala(folder, "clear", "things")

    async def loaded() -> bool:
        return (await load.lookup(1)).source == "loader"

    await eventually(loaded, "the news of it arrives", 2)
    write(folder, escala__toml=PROJECT.format(url="unix:///nowhere/valkey.sock"))
    assert "reading the cache failed (Valkey: " in await escala(folder, "stats")
