"""Several processes, as replicas are: one load per fleet, a history that none gets wrong, and engines that fail."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from escala.cache.valkey.link import LEASE
from escala.engines import valkey_engine
from escala.project.layout import Layout
from tests.support import REPOSITORY, long, minimal_config, start_engine, stop_engine, wait_until

BOUND = LEASE
"""What is promised, however busy the machine is. How soon it usually is, `benchmarks.cache` measures."""


class Process:
    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.cache.process"],
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answer()

    def tell(self, *deed: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(deed) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def ask(self, *deed: Any) -> dict[str, Any]:
        self.tell(*deed)
        return self.answer()

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(20)
        self.process.stdin.close()
        self.process.stdout.close()


def query(postgres_url: str, statement: str, *arguments: Any) -> Any:
    """Return the first value of a statement's result."""

    async def run() -> Any:
        connection = await asyncpg.connect(postgres_url)
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()

    with asyncio.Runner() as runner:
        return runner.run(run())


def loads(postgres_url: str, key: str) -> int:
    return int(query(postgres_url, "select count(*) from loads where key = $1", key))


@pytest.fixture
def tables(postgres_url: str) -> None:
    for statement in (
        "drop table if exists loads, truth",
        "create table loads (key text)",
        "create table truth (value int)",
        "insert into truth values (0)",
    ):
        query(postgres_url, statement)


Fleet = Callable[..., list[Process]]


@pytest.fixture
def fleet(postgres_url: str, valkey_url: str, tables: None) -> Iterator[Fleet]:
    """Return a function that starts so many processes."""
    with ExitStack() as stack:

        def start(count: int, valkey: str = valkey_url, **environment: str) -> list[Process]:
            variables = {
                "ESCALA_PROJECT__NAME": "tests",
                "ESCALA_ENGINES__POSTGRES__URL": postgres_url,
                "ESCALA_ENGINES__VALKEY__URL": valkey,
                **environment,
            }
            made = []
            for _ in range(count):
                made.append(Process(variables))
                stack.callback(made[-1].end)
            return made

        yield start


def test_a_stampede_is_one_load(fleet: Fleet, postgres_url: str) -> None:
    """Scenario 9 of the field's: 10, 100 and 1,000 callers over four processes, and a load of half a second."""
    processes = fleet(4)
    for callers in (10, 100, 1000):
        for process in processes:
            process.tell("stampede", f"key{callers}", callers // 4)
        assert [process.answer() for process in processes] == [{"values": 1}] * 4
        assert loads(postgres_url, f"key{callers}") == 1
    assert sum(process.ask("state")["waits"] for process in processes) == 3 * 3


def test_a_load_outlives_the_process_that_ran_it(fleet: Fleet, postgres_url: str) -> None:
    """The process that loads is killed: another one takes over once its lock has ended, and no caller fails."""
    processes = fleet(3, LOAD_SECONDS="1")
    processes[0].tell("stampede", "k", 5)

    wait_until(lambda: loads(postgres_url, "k"), "the load has begun")
    for process in processes[1:]:
        process.tell("stampede", "k", 5)
    processes[0].process.send_signal(signal.SIGKILL)
    processes[0].process.wait()
    assert [process.answer() for process in processes[1:]] == [{"values": 1}] * 2
    assert loads(postgres_url, "k") == 2


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=long)])
def test_a_read_never_sees_less_than_what_was_written_before(fleet: Fleet, seed: int) -> None:
    """Scenario 10: a read that starts after a write's return plus the bound never sees the older value."""
    processes = fleet(4)
    for number, process in enumerate(processes):
        process.tell("history", 3, 10 * seed + number)
    stories = [process.answer() for process in processes]
    writes = sorted(tuple(write) for story in stories for write in story["writes"])
    assert len(writes) > 20
    worst = 0.0
    sources = set()
    for story in stories:
        own = dict(story["writes"])
        for began, seen, source in story["reads"]:
            sources.add(source)
            assert seen >= max((value for at, value in own.items() if at <= began), default=0)  # its own at once
            missed = [at for at, value in writes if value > seen and at <= began]
            worst = max([worst, *(began - at for at in missed)])
    assert worst <= BOUND
    assert sources == {"l1", "l2", "loader"}


@pytest.mark.parametrize("seconds", [1, pytest.param(10, marks=long), pytest.param(30, marks=long)])
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_valkey_may_go_and_come_back(
    fleet: Fleet, make_folder: Callable[[], Path], postgres_url: str, seconds: float, how: str
) -> None:
    """Under load no lookup fails, nothing stale is served for longer than a second, and it recovers by itself."""
    layout = Layout(make_folder())
    layout.create()
    engine = valkey_engine(minimal_config(), layout)
    engine.prepare()
    running = [start_engine(engine)]
    try:
        processes = fleet(2, valkey=engine.url)
        for process in processes:
            process.tell("load", seconds + 4)
        time.sleep(0.5)
        gone = time.monotonic()
        if how == "kill":
            running[0].kill()
            running[0].wait()
        else:
            running[0].send_signal(signal.SIGSTOP)
        query(postgres_url, "update truth set value = 7")
        threading.Event().wait(seconds)
        if how == "kill":
            engine.prepare()
            running.append(start_engine(engine))
        else:
            running[0].send_signal(signal.SIGCONT)
        back = time.monotonic()
        for process in processes:
            told = process.answer()
            assert told["failed"] == []
            assert told["done"] > 100
            assert told["slowest"] < 2.5
            assert how == "stop" or told["last"]["loader"] > gone
            assert told["last"]["l1"] > back
            assert process.ask("state")["connected"]
    finally:
        for server in running:
            server.send_signal(signal.SIGCONT)
        stop_engine(engine, running[-1])
