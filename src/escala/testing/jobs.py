"""Jobs in a test, without a worker."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

from escala import database
from escala.database import Connection
from escala.tasks.context import current_job
from escala.tasks.job import JobRecord
from escala.tasks.store import attempts as store
from escala.tasks.store import jobs, upkeep, workers
from escala.tasks.store.attempts import BEGINNING, Again, Claimed, Finished
from escala.tasks.task import Task
from escala.tasks.worker.attempt import Attempt, Outcome, raised, succeeded

_AT_ONCE = 100


async def run_jobs(*tasks: Task[..., Any]) -> list[JobRecord]:
    """Run the jobs of these tasks that are due, and those that they enqueue, until none is left; return them.

    They run one after another, on this event loop; plain functions in a thread. A failed attempt is repeated as often
    as the task says, without its pause. Limits do not hold.

    ``await report.enqueue(month=1); [job] = await run_jobs(report); assert job.result == ...``

    Raises NotConnected before the database is connected (`escala.running`).
    """
    by_name = {task.name: task for task in tasks}
    turns = [(queue, BEGINNING) for queue in sorted({task.queue for task in tasks})]
    done: list[uuid.UUID] = []
    async with database.connection() as connection:
        owner = uuid.uuid4()
        await workers.register(connection, owner, node="", pid=0, replica="test", queues=[queue for queue, _ in turns])
        try:
            while claimed := await _claim(connection, owner, turns):
                for job in claimed:
                    if (task := by_name.get(job.task)) is None:
                        known = ", ".join(by_name)
                        raise LookupError(
                            f"a job of the task {job.task!r} waits in the same queue; give it, too: {known}"
                        )
                    outcome = await _attempt(Attempt(job, task, owner))
                    await _settle(connection, owner, job, outcome)
                    if outcome.state != "again":
                        done.append(job.id)
        finally:
            await workers.rescue_dead(connection, "", 0)
        records = [await jobs.find(connection, job) for job in done]
    return [record for record in records if record is not None]


async def _claim(connection: Connection, owner: uuid.UUID, turns: Sequence[tuple[str, store.Mark]]) -> list[Claimed]:
    await upkeep.stage(connection)
    return await store.claim(connection, owner, turns, _AT_ONCE)


async def _attempt(attempt: Attempt) -> Outcome:
    token = current_job.set(attempt.context)
    try:
        arguments = attempt.arguments()
        attempt.began = 0.0
        function = attempt.task.function
        if attempt.task.is_async:
            return succeeded(attempt, await function(**arguments))
        return succeeded(attempt, await asyncio.to_thread(function, **arguments))
    except Exception as error:  # what ends the test, such as KeyboardInterrupt, does
        return raised(attempt, error)
    finally:
        current_job.reset(token)


async def _settle(connection: Connection, owner: uuid.UUID, job: Claimed, outcome: Outcome) -> None:
    if outcome.state == "again":
        await store.again(connection, owner, [Again(job.id, job.attempt, 0.0, outcome.error, outcome.counts)])
        return
    async with connection.transaction():
        row = Finished(job.id, job.attempt, outcome.state, outcome.result, outcome.error, "")
        await store.finish(connection, owner, [row])
        if outcome.files:
            await store.add_files(connection, job.id, outcome.files)
