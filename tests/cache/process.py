"""One of several processes that share a cache: it does what it is told on stdin, a line of JSON for each deed.

It answers with a line of JSON for each deed, in the order in which they end. `at` is time.monotonic(), which all
processes of a machine share.
"""

import asyncio
import json
import os
import random
import sys
import time
from typing import Any

from escala import Cache, database, running
from escala.cache import slot
from escala.errors import EscalaError

things = Cache("things", jitter=0)
BUSY = float(os.environ.get("LOAD_SECONDS", "0.5"))


@things.cached(ttl="60s", tags=["k:{key}"])
async def slow(key: str) -> str:
    """Ask PostgreSQL something slow, and leave a mark for each time."""
    async with database.connection() as connection:
        await connection.execute("insert into loads values ($1)", key)
        return str(await connection.fetchval("select $1::text from pg_sleep($2)", key, BUSY))


@things.cached(ttl="60s", tags=["truth"])
async def truth() -> int:
    async with database.connection() as connection:
        seen: int = await connection.fetchval("select value from truth")
    await asyncio.sleep(random.random() * 0.01)
    return seen


async def stampede(key: str, callers: int) -> dict[str, Any]:
    return {"values": len(set(await asyncio.gather(*(slow(key) for _ in range(callers)))))}


async def history(seconds: float, seed: int) -> dict[str, Any]:
    """Read and write at random; return what was read and written, and when."""
    chance = random.Random(seed)
    reads: list[tuple[float, int, str]] = []
    writes: list[tuple[float, int]] = []

    async def read() -> None:
        began = time.monotonic()
        found = await truth.lookup()
        reads.append((began, found.value, found.source))

    async def write() -> None:
        async with database.transaction() as connection:
            written = await connection.fetchval("update truth set value = value + 1 returning value")
            await things.invalidate("truth")
        writes.append((time.monotonic(), written))

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.gather(*(read() for _ in range(5)), *([write()] if chance.random() < 0.1 else []))
        await asyncio.sleep(chance.random() * 0.01)
    return {"reads": reads, "writes": writes}


async def load(seconds: float) -> dict[str, Any]:
    """Look up without pause; return how many lookups failed, and the latest moments at which L1 and L2 answered."""
    failed: list[str] = []
    done = 0
    last = {"l1": 0.0, "l2": 0.0, "loader": 0.0}
    slowest = 0.0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        try:
            found = await truth.lookup()
            last[found.source] = time.monotonic()
        except EscalaError as error:
            failed.append(f"{type(error).__name__}: {error}")
        done += 1
        slowest = max(slowest, time.monotonic() - began)
        await asyncio.sleep(0.005)
    return {"done": done, "failed": failed, "last": last, "slowest": slowest}


async def state() -> dict[str, Any]:
    system = slot.get()
    return {"connected": system.connected, **system.counts["things"].as_dict()}


DEEDS = {deed.__name__: deed for deed in (stampede, history, load, state)}


def say(**words: Any) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


async def main() -> None:
    async with running():
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        say(ready=os.getpid())
        while line := await reader.readline():
            name, *arguments = json.loads(line)
            say(**await DEEDS[name](*arguments))


asyncio.run(main())
