"""One job: its record, its files, its end and its new start."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from escala import database
from escala.http.problem import Problem
from escala.services.jobs.access import visible
from escala.tasks.job import JobRecord
from escala.tasks.store import administration, jobs


async def show(request: Request) -> Response:
    """GET /jobs/{id}: the job's state, attempt and progress, and its result or error once it has finished."""
    record = await visible(request)
    headers = {"Retry-After": "1"} if record.finished_at is None else {}
    return Response(msgspec.json.encode(document(record)), headers=headers, media_type="application/json")


def document(record: JobRecord) -> dict[str, Any]:
    """Return a job as JSON shows it."""
    base = f"/jobs/{record.id}/files/"
    return {**msgspec.to_builtins(record), "files": {name: base + name for name in record.files}}


async def file(request: Request) -> Response:
    """GET /jobs/{id}/files/{name}: a file of the job's result."""
    record, name = await visible(request), request.path_params["name"]
    async with database.connection() as connection:
        # PostgreSQL cannot store a NUL character and rejects a query with one, so no file has such a name.
        found = None if "\0" in name else await jobs.find_file(connection, record.id, name)
    if found is None:
        raise Problem(404, "There is no such file.")
    # The file comes from a task and is only data: a browser must not run it as a page of this origin.
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"}
    return Response(found.content, headers=headers, media_type=found.media_type)


async def cancel(request: Request) -> Response:
    """DELETE /jobs/{id}: cancel it: 200 if it waited, 202 if it runs and was asked to stop, 409 if it has finished."""
    record = await visible(request)
    async with database.connection() as connection:
        outcome = await administration.cancel(connection, record.id)
    if outcome is None:
        raise Problem(409, "The job has finished, so it cannot be cancelled.")
    return JSONResponse(
        {"id": str(record.id), "state": "cancelled" if outcome == "cancelled" else "running"},
        200 if outcome == "cancelled" else 202,
    )


async def retry(request: Request) -> Response:
    """POST /jobs/{id}/retry: let it run again if it failed or was cancelled, or at once if it is scheduled."""
    record = await visible(request)
    async with database.connection() as connection:
        done = await administration.retry(connection, record.id)
    if not done:
        raise Problem(
            409, f"Only a job that failed, was cancelled or is scheduled can be retried; it is {record.state}."
        )
    return JSONResponse({"id": str(record.id), "state": "waiting"}, 202, {"Location": f"/jobs/{record.id}"})
