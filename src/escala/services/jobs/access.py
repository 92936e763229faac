"""Who may see a job: whoever enqueued it, and a token with the scope `jobs`.

A job that nobody's token enqueued, such as one of a script, may be seen by whoever knows its id: ids cannot be guessed.
"""

import uuid

from starlette.requests import Request

from escala import database
from escala.auth import current
from escala.http.problem import Problem
from escala.tasks.job import JobRecord
from escala.tasks.store import jobs

SCOPE = "jobs"


def sees_all(request: Request) -> bool:
    return current(request).has(SCOPE)


async def visible(request: Request) -> JobRecord:
    """Return the job that the path names; raise Problem (404) if there is none that the caller may see."""
    try:
        job = uuid.UUID(request.path_params["id"])
    except ValueError:
        raise Problem(404, "There is no such job.") from None
    async with database.connection() as connection:
        record = await jobs.find(connection, job)
    if record is None or not (record.subject in (None, current(request).subject) or sees_all(request)):
        raise Problem(404, "There is no such job.")
    return record
