"""Measure the cache against its peers, and how stale a read can be.

Peers: cachebox, cashews, aiocache (as decorators in memory), functools.lru_cache (plain functions only), and a bare
client of Valkey. `pip install -e '.[bench]'` installs them.

    python -m benchmarks.cache [--rounds 9] [--invalidations 10000]
"""

import argparse
import asyncio
import functools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiocache
import asyncpg
import cachebox
import cashews
import msgspec
import uvloop
import valkey.asyncio

from benchmarks.processes import required, scratch_folder, token
from benchmarks.system import laboratory
from escala.cache import Cache, CacheSystem, slot
from escala.cache.counts import Counts
from escala.cache.l1 import L1, Entry
from escala.config import Config
from escala.engines import postgres_engine, valkey_engine
from escala.project.layout import Layout

CALLS = 20_000
PROCESSES = 8
ENTRIES = 50_000

ROW = {"carrier": "UA", "flight": 1545, "origin": "EWR", "dest": "IAH", "distance": 1400}
"""What a cached function returns here: about what a row of a query is."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="number of rounds of the timings")
    parser.add_argument("--invalidations", type=int, default=10_000, help="number of invalidations that are timed")
    parser.add_argument("--memory", metavar="PEER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(asyncio.run(memory(options.memory)))
        return
    figures: dict[str, Any] = {}
    with scratch_folder() as folder, ExitStack() as stack:
        postgres, valkey_url, server = engines(folder, stack)
        print("cost of a lookup, in microseconds: median of the rounds (least)")
        figures |= uvloop.run(lookups(valkey_url, options.rounds))
        figures |= memories()
        figures |= hit_ratios()
        fleet = Fleet(postgres, valkey_url, stack)
        figures |= stampede(fleet, postgres)
        figures |= staleness(fleet, options.invalidations)
        figures |= loss(fleet, server)
    with scratch_folder() as folder:
        figures |= database_load(folder)
    print()
    print(json.dumps(figures))


def engines(folder: Path, stack: ExitStack) -> tuple[str, str, "subprocess.Popen[bytes]"]:
    """Start PostgreSQL and Valkey; return their URLs, and Valkey's process."""
    config = Config.model_validate({"project": {"name": "bench"}, "services": {"web": {"app": "web:app"}}})
    layout = Layout(folder / "engines")
    layout.create()
    for engine in (postgres_engine(config, layout), valkey_engine(config, layout)):
        engine.prepare()
        spec = engine.process()
        assert spec is not None
        process = subprocess.Popen(
            spec.argv,
            cwd=spec.cwd,
            env=dict(spec.environment),
            user=spec.user,
            group=spec.user,
            extra_groups=[] if spec.user else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(_stop, process, spec.stop_signal)
        while True:
            try:
                asyncio.run(engine.probe())
                break
            except OSError:
                time.sleep(0.05)
    return postgres_engine(config, layout).url, valkey_engine(config, layout).url, process


def _stop(process: "subprocess.Popen[bytes]", stop: int) -> None:
    process.send_signal(signal.SIGCONT)
    process.send_signal(stop)
    process.wait(30)


# ------------------------------------------------------------------------------------------------------ cost of a hit

ours = Cache("bench", jitter=0, ttl="1h")
l2_only = Cache("bench", jitter=0, ttl="1h", levels="l2")


@ours.cached()
async def ours_text(origin: str, month: int) -> str:
    return origin


@ours.cached()
async def ours_row(origin: str, month: int) -> dict[str, Any]:
    return ROW


@ours.cached(copy=False)
async def ours_row_shared(origin: str, month: int) -> dict[str, Any]:
    return ROW


@l2_only.cached()
async def ours_l2(origin: str, month: int) -> dict[str, Any]:
    return ROW


@cachebox.cached(cachebox.LRUCache(10_000))
async def cachebox_text(origin: str, month: int) -> str:
    return origin


@cachebox.cached(cachebox.TTLCache(10_000, 3600))
async def cachebox_ttl_text(origin: str, month: int) -> str:
    return origin


@cachebox.cached(cachebox.TTLCache(10_000, 3600))
async def cachebox_row(origin: str, month: int) -> dict[str, Any]:
    return ROW


@aiocache.cached(ttl=3600)
async def aiocache_text(origin: str, month: int) -> str:
    return origin


@functools.lru_cache(10_000)
def lru_cache_text(origin: str, month: int) -> str:
    return origin


memory_cache = cashews.Cache()
memory_cache.setup("mem://?size=10000")


@memory_cache(ttl=3600)
async def cashews_text(origin: str, month: int) -> str:
    return origin


async def lookups(url: str, rounds: int) -> dict[str, Any]:
    system = CacheSystem(url, "bench")
    await system.open()
    slot.fill(system)
    client = valkey.asyncio.Valkey.from_url(url)
    await client.set("bare", msgspec.msgpack.encode(ROW))
    decode = msgspec.msgpack.Decoder(dict[str, Any]).decode

    async def bare() -> Any:
        return decode(await client.get("bare"))

    async def plain() -> Any:
        return lru_cache_text("JFK", 3)

    subjects: dict[str, tuple[Callable[[], Awaitable[Any]], int]] = {
        "escala": (lambda: ours_text("JFK", 3), CALLS),
        "cachebox": (lambda: cachebox_text("JFK", 3), CALLS),
        "cachebox, with a ttl": (lambda: cachebox_ttl_text("JFK", 3), CALLS),
        "aiocache": (lambda: aiocache_text("JFK", 3), CALLS // 10),
        "cashews": (lambda: cashews_text("JFK", 3), CALLS // 20),
        "functools.lru_cache (plain, in a coroutine)": (plain, CALLS),
        "escala, a dict, a copy each": (lambda: ours_row("JFK", 3), CALLS),
        "escala, a dict, shared": (lambda: ours_row_shared("JFK", 3), CALLS),
        "cachebox, a dict, a shallow copy each": (lambda: cachebox_row("JFK", 3), CALLS),
        "escala, from Valkey": (lambda: ours_l2("JFK", 3), CALLS // 40),
        "bare GET and decode": (bare, CALLS // 40),
    }
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, (call, count) in subjects.items():
            for _ in range(5):
                await call()
            await asyncio.sleep(0.01)
            began = time.perf_counter()
            for _ in range(count):
                await call()
            times[name].append((time.perf_counter() - began) / count * 1e6)
    for name, found in times.items():
        print(f"  {name:<46} {statistics.median(found):8.2f}  ({min(found):.2f})")
    counts = system.counts["bench"]
    assert counts.loader == 4, "the values came from L1 and Valkey"
    await client.aclose()
    slot.empty()
    await system.close()
    return {
        "hit_us": round(statistics.median(times["escala"]), 3),
        "hit_ratio_to_cachebox": _ratio(times["escala"], times["cachebox"]),
        "hit_ratio_to_cachebox_ttl": _ratio(times["escala"], times["cachebox, with a ttl"]),
        "hit_ratio_to_aiocache": _ratio(times["escala"], times["aiocache"]),
        "hit_ratio_to_cashews": _ratio(times["escala"], times["cashews"]),
        "dict_copy_us": round(statistics.median(times["escala, a dict, a copy each"]), 3),
        "dict_copy_ratio_to_cachebox": _ratio(
            times["escala, a dict, a copy each"], times["cachebox, a dict, a shallow copy each"]
        ),
        "l2_us": round(statistics.median(times["escala, from Valkey"]), 1),
        "l2_ratio_to_bare_get": _ratio(times["escala, from Valkey"], times["bare GET and decode"]),
    }


def _ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the median of the ratios of the rounds: what disturbs a round disturbs both."""
    return round(statistics.median(a / b for a, b in zip(one, other, strict=True)), 3)


# --------------------------------------------------------------------------------------------------- memory and policy


def memories() -> dict[str, Any]:
    """Measure each peer in a process of its own."""
    print(f"\nbytes per entry of {ENTRIES} (a dict of five, two arguments)")
    figures: dict[str, Any] = {}
    for peer in ("escala", "cachebox", "aiocache", "cashews", "dict"):
        command = [sys.executable, "-m", "benchmarks.cache", "--memory", peer]
        figures[peer] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"  {peer:<10} {figures[peer]:7.0f}")
    return {f"bytes_per_entry_{peer}": round(size) for peer, size in figures.items()}


async def memory(peer: str) -> float:
    """Return how much memory an entry takes: growth of the resident set, with ENTRIES entries."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def row(number: int) -> dict[str, Any]:
        return {**ROW, "flight": number, "origin": f"o{number}", "dest": f"d{number}"}

    alone = Cache("alone", levels="l1", jitter=0)
    system = CacheSystem("", "bench", _limits())
    await system.open()
    slot.fill(system)
    cashews_cache = cashews.Cache()
    cashews_cache.setup(f"mem://?size={ENTRIES * 2}")

    async def load(origin: str, month: int) -> dict[str, Any]:
        return row(month)

    table: dict[Any, Any] = {}

    async def keep(origin: str, month: int) -> None:
        table[origin, month] = (row(month), time.monotonic())

    calls: dict[str, Callable[[str, int], Awaitable[Any]]] = {
        "escala": alone.cached(name="load", ttl="1h")(load),
        "cachebox": cachebox.cached(cachebox.TTLCache(ENTRIES * 2, 3600))(load),
        "aiocache": aiocache.cached(ttl=3600)(load),
        "cashews": cashews_cache(ttl=3600)(load),
        "dict": keep,
    }
    call = calls[peer]
    for number in range(100):
        await call("warm", number)
    before = resident()
    for number in range(ENTRIES):
        await call(f"JFK{number}", number)
    grown = resident() - before
    await system.close()
    return grown / ENTRIES


def _limits() -> Any:
    from escala.cache import Limits

    return Limits(entries=ENTRIES * 2, bytes=2**34)


class Lru:
    def __init__(self, size: int) -> None:
        self._size, self._entries = size, OrderedDict[str, None]()

    def asked(self, key: str) -> bool:
        if key in self._entries:
            self._entries.move_to_end(key)
            return True
        self._entries[key] = None
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)
        return False


class Ours:
    def __init__(self, size: int) -> None:
        self._l1 = L1(size, 2**40)
        self._l1.switch_on()

    def asked(self, key: str) -> bool:
        if self._l1.get(key) is not None:
            return True
        self._l1.put(Entry(key, (), None, None, lambda payload: payload, 1, Counts()), self._l1.ticket())
        return False


def hit_ratios(size: int = 1000, requests: int = 300_000) -> dict[str, Any]:
    print(f"\nhit ratio with room for {size} entries, {requests} requests")
    figures: dict[str, Any] = {}
    for name, trace in (("zipf", zipf), ("scan", scan), ("loop", loop)):
        ratios = []
        for policy in (Ours(size), Lru(size)):
            hits = sum(policy.asked(key) for key in trace(size, requests))
            ratios.append(hits / requests)
        figures |= {f"hit_ratio_{name}": round(ratios[0], 3), f"hit_ratio_{name}_lru": round(ratios[1], 3)}
        print(f"  {name:<5} {ratios[0]:.3f}   LRU {ratios[1]:.3f}")
    return figures


def zipf(size: int, requests: int, keys: int = 50_000, exponent: float = 0.9) -> Iterator[str]:
    """Yield keys of which the nth is asked for in proportion to 1 / n ** exponent."""
    weights = [1 / rank**exponent for rank in range(1, keys + 1)]
    yield from map(str, random.Random(1).choices(range(keys), weights, k=requests))


def scan(size: int, requests: int) -> Iterator[str]:
    """Yield Zipf's keys; now and then something reads five times the cache's size once."""
    fresh = 0
    for number, key in enumerate(zipf(size, requests)):
        yield key
        if number % (size * 20) == 0:
            for _ in range(size * 5):
                fresh += 1
                yield f"scan{fresh}"


def loop(size: int, requests: int) -> Iterator[str]:
    """Yield a list of 1.5 times the cache's size from front to back, over and over."""
    for number in range(requests):
        yield str(number % (size * 3 // 2))


# ------------------------------------------------------------------------------------------------------- the processes


class Fleet:
    def __init__(self, postgres: str, valkey_url: str, stack: ExitStack) -> None:
        asyncio.run(_execute(postgres, "drop table if exists loads; create table loads (key text)"))
        environment = {
            **os.environ,
            "ESCALA_PROJECT__NAME": "bench",
            "ESCALA_ENGINES__POSTGRES__URL": postgres,
            "ESCALA_ENGINES__VALKEY__URL": valkey_url,
        }
        self._processes = []
        for _ in range(PROCESSES + 1):
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.cache_process"],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(_end, process)
            self._processes.append(process)
            self.answer(process)
        self.asker, *self.members = self._processes

    def tell(self, process: "subprocess.Popen[str]", *deed: Any) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps(deed) + "\n")
        process.stdin.flush()

    def answer(self, process: "subprocess.Popen[str]") -> Any:
        assert process.stdout is not None
        return json.loads(process.stdout.readline())

    def ask(self, processes: Sequence["subprocess.Popen[str]"], *deed: Any) -> list[Any]:
        """Tell all of them at once, and return what each answers."""
        for process in processes:
            self.tell(process, *deed)
        return [self.answer(process) for process in processes]


def _end(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait(30)


async def _execute(postgres: str, statement: str) -> Any:
    connection = await asyncpg.connect(postgres)
    try:
        if statement.startswith("select"):
            return await connection.fetchval(statement)
        return await connection.execute(statement)
    finally:
        await connection.close()


def stampede(fleet: Fleet, postgres: str, rounds: int = 5) -> dict[str, Any]:
    """Let 1,000 callers in eight processes ask for one value whose load takes half a second."""
    counts = []
    for number in range(rounds):
        fleet.ask(fleet.members, "stampede", f"key{number}", 1000 // PROCESSES)
        counts.append(asyncio.run(_execute(postgres, f"select count(*) from loads where key = 'key{number}'")))
    print(f"\nloads for 1,000 callers in {PROCESSES} processes, {rounds} rounds: {counts}")
    return {"loads_of_a_stampede": max(counts)}


def staleness(fleet: Fleet, invalidations: int) -> dict[str, Any]:
    """Measure the time from the return of `invalidate` until the last process has dropped the value."""
    fleet.ask(fleet.members, "watch", 100)
    time.sleep(1)
    fleet.ask(fleet.members, "dropped")
    returned: list[float] = fleet.ask([fleet.asker], "invalidate", invalidations, 0.012)[0]
    time.sleep(0.5)
    dropped = sorted(at for found in fleet.ask(fleet.members, "dropped") for at in found)
    latest: dict[int, float] = {}
    position = 0
    for at in dropped:
        while position + 1 < len(returned) and returned[position + 1] - 0.002 <= at:
            position += 1
        latest[position] = max(latest.get(position, 0.0), (at - returned[position]) * 1000)
    delays = sorted(max(0.0, delay) for delay in latest.values())
    p50, p99, most = delays[len(delays) // 2], delays[int(len(delays) * 0.99)], delays[-1]
    print(f"\nfrom the return of invalidate() to the last drop, {len(delays)} rounds, {len(dropped)} drops:")
    print(f"  p50 {p50:.2f} ms   p99 {p99:.2f} ms   max {most:.2f} ms")
    return {"stale_p50_ms": round(p50, 2), "stale_p99_ms": round(p99, 2), "stale_max_ms": round(most, 2)}


def loss(fleet: Fleet, server: "subprocess.Popen[bytes]", rounds: int = 5) -> dict[str, Any]:
    """Measure how long L1 answers after Valkey has fallen silent (SIGSTOP: its sockets stay open)."""
    times = []
    for _ in range(rounds):
        server.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        time.sleep(1.5)
        times.append(max(0.0, *(at - stopped for at in fleet.ask(fleet.members, "last_l1"))))
        server.send_signal(signal.SIGCONT)
        time.sleep(4)
    print(f"\nfrom silence to L1 off: {max(times):.3f} s at most of {rounds} rounds")
    return {"loss_to_off_s": round(max(times), 3)}


# ------------------------------------------------------------------------------------------ what the database is spared

RATE = 2000
CONNECTIONS = 64
UNCACHED_APP = """
import inspect

from laboratorio import microservice
from escala.cache import Lookup


class Plain:
    def __init__(self, function):
        self.function = function

    async def __call__(self, *arguments):
        return await self.function(*arguments)

    async def lookup(self, *arguments):
        return Lookup(await self.function(*arguments), "loader")


for name in ("departures", "known_codes"):
    setattr(microservice, name, Plain(inspect.unwrap(getattr(microservice, name))))
app = microservice.app
"""
UNCACHED_SERVICE = """
[services.uncached]
app = "uncached:app"
replicas = 2
routes = [{ path = "/uncached", to = "/data" }]
"""
WRK = """
local paths, sums, total = {}, {}, 0
for month = 1, 12 do
  for day = 1, 28 do
    for _, origin in ipairs({"JFK", "LGA", "EWR"}) do
      paths[#paths + 1] = string.format("?origin=%s&month=%d&day=%d", origin, month, day)
    end
  end
end
for rank = 1, #paths do
  total = total + 1 / rank
  sums[rank] = total
end
math.randomseed(7)
function request()
  local wanted, low, high = math.random() * total, 1, #paths
  while low < high do
    local middle = math.floor((low + high) / 2)
    if sums[middle] < wanted then low = middle + 1 else high = middle end
  end
  return wrk.format("GET", wrk.path .. paths[low])
end
function delay()
  return PAUSE
end
"""


def database_load(folder: Path, seconds: int = 10) -> dict[str, Any]:
    """Count PostgreSQL's queries while the laboratory's /data gets 2,000 requests per second of Zipf's keys."""
    script = folder / "zipf.lua"
    script.write_text(WRK.replace("PAUSE", str(CONNECTIONS * 1000 // RATE - 1)))
    figures: dict[str, Any] = {}
    print(f"\nPostgreSQL's queries per second under at most {RATE} requests per second")
    with laboratory(folder, UNCACHED_SERVICE, uncached=UNCACHED_APP) as project:
        secret, postgres = token(project), postgres_engine(project.config, project.layout).url
        for name, path in (("cached", "/data"), ("uncached", "/uncached")):
            command = [str(required("wrk")), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "-s", str(script)]
            command += ["-H", f"Authorization: Bearer {secret}", f"{project.config.gateway.url}{path}"]
            subprocess.run(command, capture_output=True, check=True)  # warm
            said: list[str] = []
            queries = _queries(postgres, lambda: said.append(_said(command)))  # noqa: B023 - it runs at once
            rate = float(said[0].partition("Requests/sec:")[2].split()[0])
            refused = said[0].partition("Non-2xx or 3xx responses:")[2].split()[:1]
            per_second = queries / seconds
            print(f"  {name:<9} {rate:7.0f} requests/s   {per_second:8.1f} queries/s   refused: {refused or 0}")
            figures |= {f"requests_per_s_{name}": round(rate), f"queries_per_s_{name}": round(per_second, 1)}
    return figures


def _said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _queries(postgres: str, work: Callable[[], Any]) -> float:
    """Return how many queries read the table of flights while `work` ran."""
    count = "select seq_scan + coalesce(idx_scan, 0) from pg_stat_user_tables where relname = 'flights'"
    before = asyncio.run(_execute(postgres, count))
    work()
    time.sleep(1.5)  # until the figures of idle connections have been reported
    return float(asyncio.run(_execute(postgres, count)) - before)


if __name__ == "__main__":
    main()
