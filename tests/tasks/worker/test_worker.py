"""The worker on a real queue, in this process. Deaths of a worker's process are tested in test_deaths.py."""

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from escala.database import Connection, Database
from escala.errors import WorkerWornOut
from escala.replica.loading import load_tasks
from escala.tasks import Task
from escala.tasks.job import JobRecord
from escala.tasks.store import attempts as store
from escala.tasks.store import jobs, workers
from escala.tasks.worker import worker as worker_module
from escala.tasks.worker.claiming import Claimer
from escala.tasks.worker.worker import Worker
from tests.support import REPOSITORY, eventually
from tests.tasks.worker import handlers
from tests.tasks.worker.handlers import released

TASKS = load_tasks(handlers.__name__)


@asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    yield


def new(url: str, concurrency: int = 5, tasks: dict[str, Task[..., Any]] | None = None) -> Worker:
    return Worker(
        url=url,
        tasks=TASKS if tasks is None else tasks,
        module=handlers.__name__,
        root=str(REPOSITORY),
        concurrency=concurrency,
        context=nothing(),
    )


@asynccontextmanager
async def worker(
    url: str, concurrency: int = 5, tasks: dict[str, Task[..., Any]] | None = None
) -> AsyncIterator[Worker]:
    made = new(url, concurrency, tasks)
    running = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        await made.drain(0.2)
        await running


@pytest.fixture(autouse=True)
def hold() -> Iterator[None]:
    released.clear()
    yield
    released.set()


@pytest.fixture
def url(empty_queue: str, connected: Database) -> str:
    return empty_queue


async def state_of(pool: Database, job: str, condition: Callable[[JobRecord], bool]) -> JobRecord:
    async def look() -> JobRecord | None:
        async with pool.connection() as connection:
            record = await jobs.find(connection, uuid.UUID(job))
        return record if record is not None and condition(record) else None

    record = await eventually(look, "the job's state")
    assert isinstance(record, JobRecord)
    return record


async def finished(pool: Database, task: Task[..., Any], **arguments: object) -> JobRecord:
    job = await task.enqueue(**arguments)
    return await state_of(pool, job.id, lambda record: record.finished_at is not None)


def runs(record: JobRecord) -> bool:
    return record.state == "running"


def is_over(record: JobRecord) -> bool:
    return record.finished_at is not None


async def test_results(url: str, pool: Database) -> None:
    async with worker(url) as running:
        assert (await finished(pool, handlers.double, number=21)).result == 42
        assert (await finished(pool, handlers.in_a_thread)).result == "handler"
        assert (await finished(pool, handlers.filed)).files == ["a.txt"]
        process = await finished(pool, handlers.in_a_process)
        assert process.result != os.getpid()
        assert process.message == "in a process"
        assert running.succeeded == 4
        assert running.healthy


async def test_what_a_handler_sees(url: str, pool: Database) -> None:
    async with worker(url):
        record = await finished(pool, handlers.sees, number=7)
        assert record.result == {"id": str(record.id), "task": handlers.sees.name, "attempt": 1, "number": 7}
        assert record.arguments == {"number": 7}


@pytest.mark.parametrize(
    ("task", "kind", "error"),
    [
        (handlers.raises, "exit", "SystemExit: 3"),
        (handlers.raises, "panic", "Panic: oh (line"),
        (handlers.raises, "interrupt", "KeyboardInterrupt"),
        (handlers.raises, "generator", "GeneratorExit"),
        (handlers.raises, "group", "BaseExceptionGroup: many (2 sub-exceptions)"),
        (handlers.raises, "cancel", "the handler was cancelled by its own code"),
        (handlers.raises, "timeout", "TimeoutError: partner slow"),
        (handlers.raises, "unprintable", "Unprintable"),
        (handlers.raises, "long", "xxx... (96012 more characters)"),
        (handlers.raises, "surrogate", "ValueError: cannot read caf?.txt"),
        (handlers.raises_in_a_thread, "exit", "SystemExit: 3"),
        (handlers.raises_in_a_thread, "panic", "Panic: oh"),
        (handlers.raises_in_a_thread, "interrupt", "KeyboardInterrupt"),
        (handlers.raises_in_a_thread, "generator", "GeneratorExit"),
        (handlers.unstorable, "object", "the result cannot be stored: a object has no place in JSON"),
        (handlers.unstorable, "nan", "the result cannot be stored: value['x'][1] is nan, and JSON has no such number"),
        (handlers.unstorable, "files", "the result cannot be stored: two files are named 'a'"),
    ],
)
async def test_whatever_a_handler_raises_or_returns(
    url: str, pool: Database, task: Task[..., Any], kind: str, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The attempt has an outcome, in the record and in the log; the worker goes on."""
    async with worker(url) as running:
        record = await finished(pool, task, kind=kind)
        assert (await finished(pool, handlers.double, number=1)).result == 2
        assert running.healthy
    assert (record.state, record.attempt) == ("failed", 1)
    assert error in (record.error or "")
    assert len(record.error or "") < 5000
    assert str(record.id) in caplog.text
    assert error in caplog.text


@pytest.mark.parametrize(("kind", "result"), [("nul", "a\0b"), ("big", {"n": 10**40})])
async def test_results_that_are_kept_as_they_are(url: str, pool: Database, kind: str, result: object) -> None:
    async with worker(url):
        assert (await finished(pool, handlers.unstorable, kind=kind)).result == result


@pytest.mark.parametrize("how", ["task", "callback", "stop"])
async def test_the_loop_goes_on(url: str, pool: Database, how: str) -> None:
    async with worker(url):
        assert (await finished(pool, handlers.ends_the_loop, how=how)).result == "went on"
        assert (await finished(pool, handlers.double, number=1)).result == 2


async def test_attempts_by_exception(url: str, pool: Database) -> None:
    async with worker(url):
        for kind, attempts in (("reset", 3), ("value", 1), ("key", 1)):
            record = await finished(pool, handlers.choosy, kind=kind)
            assert (record.state, record.attempt) == ("failed", attempts)


async def test_a_failure_is_tried_again_and_keeps_its_reason(url: str, pool: Database) -> None:
    async with worker(url):
        record = await finished(pool, handlers.failing)
    assert (record.state, record.attempt) == ("failed", 2)
    assert "ValueError: no\N{REPLACEMENT CHARACTER}way (line" in (record.error or "")
    assert "handlers.py" in (record.error or "")


async def test_snoozing_is_no_failure(url: str, pool: Database) -> None:
    async with worker(url):
        record = await finished(pool, handlers.snoozes)
    assert (record.state, record.result) == ("succeeded", 2)


async def test_arguments_that_fit_no_more(url: str, pool: Database) -> None:
    """The code that enqueued may be newer: another worker gets the job, until it is clear that none can run it."""
    async with pool.connection() as connection, worker(url):
        job = await handlers.double.with_options(after="1h").enqueue(number=1)
        await connection.execute("""update escala.job set arguments = '{"nmber": 1}', run_at = now()""")
        record = await state_of(pool, job.id, lambda record: record.state == "scheduled" and record.attempt == 1)
        assert "arguments of task 'tests.tasks.worker.handlers.double'" in (record.error or "")
        await connection.execute("update escala.job set attempt = 9, run_at = now()")
        assert (await state_of(pool, job.id, is_over)).state == "failed"


async def test_arguments_of_another_version(url: str, pool: Database) -> None:
    """A worker takes an argument's default where an older version enqueued without it."""
    async with pool.connection() as connection:
        job = await handlers.ends_its_own_process.enqueue()
        await connection.execute("update escala.job set arguments = '{}'")
        assert handlers.ends_its_own_process.arguments.decode("{}") == {}
        await connection.execute("delete from escala.job")
        assert await jobs.find(connection, uuid.UUID(job.id)) is None


async def test_a_task_that_no_worker_knows(url: str, pool: Database, caplog: pytest.LogCaptureFixture) -> None:
    async with pool.connection() as connection, worker(url):
        job = await handlers.double.with_options(after="1h").enqueue(number=1)
        await connection.execute("update escala.job set task = 'tests.gone', run_at = now()")
        record = await state_of(pool, job.id, lambda record: record.error is not None)
        assert record.state == "scheduled"
        assert "has a task 'tests.gone'; was it renamed or removed?" in (record.error or "")
        assert "tests.gone" in caplog.text
        await connection.execute("update escala.job set task = $1, run_at = now()", handlers.double.name)
        assert (await state_of(pool, job.id, is_over)).result == 2


async def test_a_job_of_the_earlier_version(url: str, pool: Database) -> None:
    """It has the short name of its task, and waits in the queue that all shared."""
    async with pool.connection() as connection, worker(url):
        job = await handlers.double.with_options(after="1h").enqueue(number=4)
        await connection.execute("update escala.job set task = 'double', queue = 'default', run_at = now()")
        assert (await state_of(pool, job.id, is_over)).result == 8


async def test_expired_jobs_do_not_run(url: str, pool: Database) -> None:
    job = await handlers.double.with_options(expires="1ms").enqueue(number=1)
    await asyncio.sleep(0.01)
    async with worker(url):
        record = await state_of(pool, job.id, is_over)
    assert (record.state, record.error) == ("failed", "it expired before a worker could begin it")


async def test_scheduled_jobs_run_in_time(url: str, pool: Database) -> None:
    async with worker(url):
        await finished(pool, handlers.double, number=1)
        began = time.monotonic()
        job = await handlers.double.with_options(after="300ms").enqueue(number=1)
        await state_of(pool, job.id, is_over)
        assert time.monotonic() - began >= 0.3


async def test_many_jobs_are_begun_at_once(url: str, pool: Database) -> None:
    """The worker hears of them: it does not wait until it polls."""
    async with worker(url, concurrency=3):
        records = await asyncio.gather(*(finished(pool, handlers.double, number=n) for n in range(40)))
    assert [record.result for record in records] == [2 * n for n in range(40)]


async def test_more_jobs_than_places(url: str, pool: Database) -> None:
    await handlers.double.enqueue_many([{"number": n} for n in range(3000)])
    async with pool.connection() as connection, worker(url, concurrency=3) as running:

        async def all_done() -> bool:
            assert len(running.running) <= 3
            return bool(await connection.fetchval("select count(*) = 3000 from escala.finished_job"))

        await eventually(all_done, "all jobs have run")
        assert await connection.fetchval("select sum((result #>> '{}')::int) from escala.finished_job") == 2999 * 3000


async def test_a_higher_priority_comes_first(url: str, pool: Database) -> None:
    """Also where the worker has looked at the queue already, and goes on behind the jobs that it found."""
    async with pool.connection() as connection:
        low = await handlers.double.enqueue_many([{"number": n} for n in range(50)])
        high = await handlers.double.with_options(priority=10).enqueue(number=1)
        async with worker(url, concurrency=1):
            await state_of(pool, high.id, is_over)
            first = await connection.fetchval(
                "select id from escala.finished_job order by started_at, finished_at limit 1"
            )
            assert str(first) == high.id
            await state_of(pool, low[-1].id, is_over)


async def test_a_blocking_handler_keeps_its_lease(url: str, pool: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LEASE_SECONDS", 2.0)
    async with worker(url) as first, worker(url) as second:
        job = await handlers.blocking.enqueue()
        seen = await state_of(pool, job.id, lambda record: record.message == "blocking")
        assert seen.progress == 0.25
        record = await state_of(pool, job.id, is_over)
        assert first.healthy
        assert second.healthy
    assert (record.state, record.attempt, record.result) == ("succeeded", 1, "done")


async def test_a_full_worker_is_not_deaf(url: str, pool: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """It claims nothing while all its places are taken, and renews its lease all the same."""
    monkeypatch.setattr(worker_module, "DEAF_SECONDS", 1.5)
    async with worker(url, concurrency=1) as full:
        job = await handlers.waiting.enqueue()
        await state_of(pool, job.id, runs)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert full.healthy
            await asyncio.sleep(0.05)
        released.set()
        await state_of(pool, job.id, is_over)


@pytest.mark.parametrize("task", [handlers.slow, handlers.stuck, handlers.stuck_process])
async def test_timeouts(url: str, pool: Database, task: Task[..., Any]) -> None:
    async with worker(url):
        record = await finished(pool, task)
        assert (record.state, record.error) == ("failed", f"no result within {task.timeout:g} s")


async def test_a_thread_that_outlived_its_timeout_keeps_its_place(url: str, pool: Database) -> None:
    """The others run, as many as there are places left; the time of each counts from its beginning."""
    async with worker(url, concurrency=3) as running:
        for _ in range(2):
            assert (await finished(pool, handlers.stuck)).state == "failed"
        assert len(running.abandoned) == 2
        records = await asyncio.gather(*(finished(pool, handlers.double, number=n) for n in range(20)))
        assert {record.state for record in records} == {"succeeded"}
        assert (await finished(pool, handlers.in_a_thread)).state == "succeeded"
        released.set()

        async def places_are_free() -> bool:
            return not running.abandoned

        await eventually(places_are_free, "the threads have ended")


async def test_an_async_handler_that_does_not_end(url: str, pool: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "GRACE_SECONDS", 0.3)
    async with worker(url) as running:
        assert (await finished(pool, handlers.deaf)).error == "no result within 0.1 s"
        assert len(running.abandoned) == 1
        released.set()


async def test_a_worker_without_a_place_ends(url: str, pool: Database) -> None:
    """Its supervisor starts another one."""
    made = new(url, concurrency=2)
    running = asyncio.create_task(made.run())
    first, second = await handlers.stuck.enqueue(), await handlers.stuck.enqueue()
    with pytest.raises(WorkerWornOut, match="all 2 places"):
        async with asyncio.timeout(20):
            await running
    for job in (first, second):
        assert (await state_of(pool, job.id, is_over)).error == "no result within 0.3 s"


async def test_a_handler_that_blocks_the_loop_for_ever(
    url: str, pool: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is charged, its neighbours are not: they are given back."""
    monkeypatch.setattr(worker_module, "GRACE_SECONDS", 0.3)
    made = new(url)
    running = asyncio.create_task(made.run())
    neighbour = await handlers.waiting_on_the_loop.enqueue(folder="/nowhere")
    await state_of(pool, neighbour.id, runs)
    culprit = await handlers.blocking_for_ever.enqueue()
    with pytest.raises(WorkerWornOut, match="blocking_for_ever"):
        async with asyncio.timeout(20):
            await running
    assert (await state_of(pool, culprit.id, is_over)).error == "no result within 0.2 s"
    record = await state_of(pool, neighbour.id, lambda record: not runs(record))
    assert (record.state, record.error) == ("waiting", None)


async def test_drain_lets_jobs_finish(url: str, pool: Database) -> None:
    made = new(url)
    running = asyncio.create_task(made.run())
    job = await handlers.waiting.enqueue()
    await state_of(pool, job.id, runs)
    draining = asyncio.create_task(made.drain(20))
    await asyncio.sleep(0)
    later = await handlers.double.enqueue(number=1)
    released.set()
    await draining
    await running
    assert (await state_of(pool, job.id, lambda record: True)).state == "succeeded"
    assert (await state_of(pool, later.id, lambda record: True)).state == "waiting"


@pytest.mark.parametrize("task", [handlers.waiting, handlers.waiting_on_the_loop])
async def test_what_does_not_finish_is_given_back(
    url: str, pool: Database, task: Task[..., Any], tmp_path: Path
) -> None:
    arguments = {"folder": str(tmp_path)} if task is handlers.waiting_on_the_loop else {}
    async with worker(url):
        job = await task.enqueue(**arguments)
        await state_of(pool, job.id, runs)
    record = await state_of(pool, job.id, lambda record: True)
    assert (record.state, record.attempt, record.error) == ("waiting", 1, None)
    released.set()
    (tmp_path / "go").touch()
    async with worker(url):
        record = await state_of(pool, job.id, is_over)
    assert (record.state, record.attempt) == ("succeeded", 2)


async def test_what_was_claimed_ahead_is_given_back_at_once(url: str, pool: Database, connection: Connection) -> None:
    """It was no attempt: nothing of it is counted."""
    async with worker(url, concurrency=1) as running:
        await handlers.double.enqueue_many([{"number": n} for n in range(2000)])

        async def is_fast() -> bool:
            return running._rate.per_second > 50

        await eventually(is_fast, "the worker claims ahead")
        await handlers.waiting.with_options(priority=1).enqueue()

        async def holds_some() -> bool:
            return bool(running._ready)

        await eventually(holds_some, "jobs were claimed ahead")
    rows = await connection.fetch("select state, attempt, task, count(*) from escala.job group by 1, 2, 3")
    states = {(row["state"], row["attempt"]) for row in rows if row["task"] == handlers.double.name}
    assert states <= {("waiting", 0)}
    released.set()


async def test_two_at_a_time_over_all_workers(url: str, pool: Database, connection: Connection) -> None:
    async with worker(url), worker(url):
        made = await handlers.two_at_a_time.enqueue_many([{"number": n} for n in range(40)])
        for job in made:
            await state_of(pool, job.id, is_over)
    rows = await connection.fetch("select state, attempt, (result #>> '{}')::int as running from escala.finished_job")
    assert {(row["state"], row["attempt"]) for row in rows} == {("succeeded", 1)}
    assert max(row["running"] for row in rows) == 2


async def test_a_rate_over_all_workers(url: str, pool: Database) -> None:
    async with worker(url), worker(url):
        made = await handlers.five_a_second.enqueue_many([{"number": n} for n in range(9)])
        times = sorted([(await state_of(pool, job.id, is_over)).result for job in made])
    assert times[-1] - times[0] >= 0.7  # five at once, then one each 200 ms


async def test_a_tick_that_was_missed(url: str, pool: Database, connection: Connection) -> None:
    """Two workers begin after it: its job is made once. A task that is new waits for its next tick."""
    async with worker(url):

        async def is_followed() -> bool:
            return bool(await connection.fetchval("select count(*) from escala.cron"))

        await eventually(is_followed, "the task is followed")
    assert await connection.fetchval("select count(*) from escala.finished_job") == 0
    await connection.execute("update escala.cron set last_tick = now() - interval '3 years'")
    async with worker(url), worker(url):

        async def has_run() -> bool:
            return bool(await connection.fetchval("select count(*) from escala.finished_job"))

        await eventually(has_run, "the missed tick is made up for")
        assert (await finished(pool, handlers.double, number=1)).result == 2
    rows = await connection.fetch("select task from escala.finished_job where task = $1", handlers.at_new_year.name)
    assert len(rows) == 1


@pytest.mark.parametrize("how", ["exit", "kill"])
async def test_a_job_that_ends_its_own_process(url: str, pool: Database, how: str) -> None:
    """Only it is charged, and after three processes it is set aside. The pool goes on."""
    async with worker(url):
        record = await finished(pool, handlers.ends_its_own_process, how=how)
        assert record.state == "failed"
        assert record.attempt == workers.MOST_CRASHES
        assert "set aside: it ended 3 processes" in (record.error or "")
        assert ("exit code 3" if how == "exit" else "signal 9") in (record.error or "")
        assert isinstance((await finished(pool, handlers.in_a_process)).result, int)


async def test_suspects_run_alone(url: str, pool: Database, connection: Connection) -> None:
    """After a crash, all that ran there are suspects: the culprit is set aside, the others succeed."""
    culprit = await handlers.ends_its_process.enqueue()
    others = await handlers.double.enqueue_many([{"number": n} for n in range(30)])
    await connection.execute("update escala.job set state = 'suspect'")
    async with worker(url) as running:
        record = await state_of(pool, culprit.id, is_over)
        assert record.state == "failed"
        for job in others:
            assert (await state_of(pool, job.id, is_over)).state == "succeeded"
        assert running.healthy


async def test_a_lost_job_is_cancelled(url: str, pool: Database, connection: Connection) -> None:
    async with worker(url) as running:
        job = await handlers.reports.enqueue()
        await state_of(pool, job.id, lambda record: record.message == "reading caf?.txt")
        await connection.execute("update escala.job set attempt = attempt + 1")

        async def has_ended() -> bool:
            return not running.running and not running.abandoned

        await eventually(has_ended, "the attempt is cancelled")
        assert (await state_of(pool, job.id, lambda record: True)).attempt == 2
        assert (running.succeeded, running.failed) == (0, 0)


async def test_a_lost_lease_gives_up_all(url: str, pool: Database, connection: Connection) -> None:
    """The worker takes a new one, and goes on."""
    async with worker(url) as running:
        job = await handlers.reports.enqueue()
        await state_of(pool, job.id, runs)
        before = running.owner
        await connection.execute("delete from escala.worker")

        async def has_another() -> bool:
            return running.owner != before and not running.running

        await eventually(has_another, "another lease")
        assert (await finished(pool, handlers.double, number=1)).result == 2


async def test_failures_of_postgresql_are_outlived(
    url: str, pool: Database, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Statements are refused, then the connections are cut. The jobs are not charged with it."""
    async with worker(url) as running:
        job = await handlers.waiting.enqueue()
        await state_of(pool, job.id, runs)
        await connection.execute("alter table escala.job rename to away")
        try:

            async def all_fail() -> bool:
                return all(f"{duty}: PostgreSQL fails" in caplog.text for duty in ("claims", "lease", "schedule"))

            await eventually(all_fail, "the duties fail")
            released.set()

            async def waits() -> bool:
                return "outcomes of 1 jobs cannot be written" in caplog.text

            await eventually(waits, "the outcome waits")
        finally:
            await connection.execute("alter table escala.away rename to job")
        record = await state_of(pool, job.id, is_over)
        assert (record.state, record.attempt) == ("succeeded", 1)
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'escala worker%'"
        )
        assert (await finished(pool, handlers.double, number=1)).result == 2
        assert running.healthy


async def test_a_bug_in_a_duty_is_loud_and_gives_back(
    url: str, pool: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_broken = False
    claim_suspects = Claimer.claim_suspects

    async def broken(self: Claimer) -> float:
        if is_broken:
            raise RuntimeError("a bug")
        return await claim_suspects(self)

    monkeypatch.setattr(Claimer, "claim_suspects", broken)
    made = new(url)
    running = asyncio.create_task(made.run())
    job = await handlers.reports.enqueue()
    await state_of(pool, job.id, runs)
    is_broken = True
    with pytest.raises(RuntimeError, match="a bug"):
        async with asyncio.timeout(20):
            await running
    record = await state_of(pool, job.id, lambda record: not runs(record))
    assert (record.state, record.error) == ("waiting", None)


async def test_a_claim_whose_answer_is_lost(
    url: str, pool: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection breaks after the claim was committed: the job runs all the same."""
    claim, cuts = store.claim, [1, 2]

    async def cut(*arguments: Any) -> Any:
        found = await claim(*arguments)
        if found and cuts:
            cuts.pop()
            raise ConnectionResetError("cut")
        return found

    monkeypatch.setattr(store, "claim", cut)
    waits = await handlers.waiting.enqueue()
    async with worker(url):
        await state_of(pool, waits.id, runs)
        record = await finished(pool, handlers.double, number=4)
        assert (record.result, record.attempt) == (8, 1)
        assert (await state_of(pool, waits.id, runs)).attempt == 1
        released.set()
    assert "the answer to a claim was lost; 1 jobs were given back" in caplog.text


async def test_what_is_left_when_a_worker_ends(url: str, pool: Database, connection: Connection) -> None:
    """Even a job that it does not know of waits again."""
    async with worker(url) as running:
        job = await handlers.double.with_options(queue="elsewhere").enqueue(number=1)
        await connection.execute("update escala.job set state = 'running', owner = $1, attempt = 1", running.owner)
    assert (await state_of(pool, job.id, lambda record: True)).state == "waiting"
