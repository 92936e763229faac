"""The plans of the queue's statements: none scans the jobs of others."""

import uuid
from datetime import UTC, datetime

import pytest

from escala.database import Connection
from escala.database.statements import statement
from escala.tasks.store.attempts import BEGINNING

OWNER = uuid.uuid4()
IDS = [uuid.uuid4() for _ in range(100)]
ONES = [1] * len(IDS)
TEXTS = [""] * len(IDS)

STATEMENTS: dict[str, tuple[object, ...]] = {
    "claim": (OWNER, ["q", "r"], [BEGINNING.rank] * 2, [BEGINNING.run_at] * 2, [0, 0], 100),
    "claim_suspects": (OWNER, ["q", "r"], 2),
    "stage": (1000,),
    "next_due": (),
    "finish": (OWNER, IDS, ONES, ["succeeded"] * len(IDS), ["1"] * len(IDS), TEXTS, TEXTS),
    "again": (OWNER, IDS, ONES, [1.0] * len(IDS), TEXTS, [True] * len(IDS)),
    "release": (OWNER, IDS, ONES, [True] * len(IDS)),
    "held": (OWNER, IDS),
    "progress": (OWNER, IDS, ONES, [0.5] * len(IDS), TEXTS),
    "rescue": ([OWNER], 3),
    "crash": (OWNER, IDS[0], 1, "", 3),
    "find": (IDS[0],),
    "prune": (1000,),
}


@pytest.fixture
async def backlog(connection: Connection) -> Connection:
    """20,000 jobs of another queue, 20,000 of this one, 10,000 for later, 1,000 that run; 20,000 finished ones."""
    await connection.execute(
        """
        insert into escala.job (task, queue, arguments, retries, state, run_at, owner)
        select 't', case when n <= 20000 then 'foreign' else 'q' end, '{}', 0,
            case when n <= 40000 then 'waiting' when n <= 50000 then 'scheduled' else 'running' end,
            now() + make_interval(secs => case when n between 40001 and 50000 then 3600 else 0 end),
            case when n > 50000 then $1::uuid end
        from generate_series(1, 51000) as n
        """,
        uuid.uuid4(),
    )
    await connection.execute(
        """
        insert into escala.finished_job (id, task, arguments, state, attempt, message, enqueued_at)
        select gen_random_uuid(), 't', '{}', 'succeeded', 1, '', now() from generate_series(1, 20000)
        """
    )
    await connection.execute("analyze escala.job; analyze escala.finished_job")
    return connection


async def explain(connection: Connection, name: str, parameters: tuple[object, ...]) -> str:
    rows = await connection.fetch(f"explain {statement('escala.tasks', name)}", *parameters)
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("name", STATEMENTS)
async def test_no_statement_scans_the_jobs(backlog: Connection, name: str) -> None:
    for mode in ("force_custom_plan", "force_generic_plan"):
        await backlog.execute(f"set plan_cache_mode = {mode}")
        plan = await explain(backlog, name, STATEMENTS[name])
        assert "Seq Scan on job" not in plan, plan
        assert "Seq Scan on finished_job" not in plan, plan
        assert "Index" in plan, plan


async def test_a_claim_begins_at_its_mark(backlog: Connection) -> None:
    """It reads what it claims, whatever waits in other queues or before the mark."""
    mark = datetime.now(UTC)
    parameters = (OWNER, ["q"], [0], [mark], [0], 10)
    await backlog.execute("insert into escala.worker values ($1, now(), '', 1, '', '{}')", OWNER)
    rows = await backlog.fetch(f"explain (analyze, timing off) {statement('escala.tasks', 'claim')}", *parameters)
    plan = "\n".join(row[0] for row in rows)
    assert "Index Scan using job_claim" in plan
    assert "Rows Removed by Filter" not in plan, plan
