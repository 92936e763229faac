"""One of the processes that `benchmarks.cache` measures: it shares a cache with the others.

It does what it is told on stdin and answers on stdout, a line of JSON each. Times are those of time.monotonic(), which
all processes of a machine share.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterable
from typing import Any

from escala import Cache, database, running
from escala.cache import CacheSystem, slot

things = Cache("things", jitter=0, ttl="1h")


@things.cached()
async def slow(key: str) -> str:
    async with database.connection() as connection:
        await connection.execute("insert into loads values ($1)", key)
        return str(await connection.fetchval("select $1::text from pg_sleep(0.5)", key))


@things.cached(tags=["shared"])
async def shared() -> int:
    return 1


@things.cached()
async def other(number: int) -> int:
    return number


async def stampede(key: str, callers: int) -> None:
    await asyncio.gather(*(slow(key) for _ in range(callers)))


class Watch:
    """Keeps the shared value in L1, looks others up meanwhile, and notes when it is dropped."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._dropped: list[float] = []
        self.last_l1 = 0.0

    async def start(self, per_second: float) -> None:
        system = slot.get()
        changed = system.changed

        def noted(names: Iterable[str]) -> None:
            names = list(names)
            before = system.levels.shared.get(f"e:{shared.key()}") is not None
            changed(names)
            if before and "t:things:shared" in names:
                self._dropped.append(time.monotonic())

        system.changed = noted  # type: ignore[method-assign]
        self._task = asyncio.create_task(self._look(system, 1 / per_second))

    async def _look(self, system: CacheSystem, pause: float) -> None:
        number = 0
        while True:
            if (await shared.lookup()).source == "l1" and system.levels.shared.trusted_until > time.monotonic():
                self.last_l1 = time.monotonic()  # not what was loaded without Valkey, which lives for a second
            number += 1
            await other(number % 50)
            await asyncio.sleep(pause)

    async def dropped(self) -> list[float]:
        found, self._dropped = self._dropped, []
        return found

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()


async def main() -> None:
    watch = Watch()

    async def invalidate(rounds: int, pause: float) -> list[float]:
        returned = []
        for _ in range(rounds):
            await things.invalidate("shared")
            returned.append(time.monotonic())
            await asyncio.sleep(pause)
        return returned

    async def last_l1() -> float:
        return watch.last_l1

    deeds: dict[str, Any] = {
        "stampede": stampede,
        "watch": watch.start,
        "dropped": watch.dropped,
        "stop": watch.stop,
        "invalidate": invalidate,
        "last_l1": last_l1,
    }
    async with running():
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        print(json.dumps("ready"), flush=True)
        while line := await reader.readline():
            name, *arguments = json.loads(line)
            print(json.dumps(await deeds[name](*arguments)), flush=True)
        await watch.stop()


if __name__ == "__main__":
    asyncio.run(main())
