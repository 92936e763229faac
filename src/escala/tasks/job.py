"""A job as its caller sees it, and what a handler can report and return."""

import uuid
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec


@dataclass(frozen=True)
class Job:
    """An enqueued job: its id and the name of its task.

    The id cannot be guessed. Any client that knows it and has a valid token may read the job at /jobs/{id}.
    """

    id: str
    task: str


class JobRecord(msgspec.Struct, kw_only=True):
    """A job as stored in the database, with the fields that GET /jobs/{id} returns."""

    id: uuid.UUID
    task: str
    arguments: dict[str, Any]
    state: str
    """waiting, running, succeeded or failed"""
    attempt: int
    progress: float
    """0 to 1"""
    message: str
    result: Any
    error: str | None
    enqueued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    files: list[str]


@dataclass(frozen=True)
class File:
    """A file that belongs to a job's result. It is stored with the result and served at /jobs/{id}/files/{name}.

    `name` must be unique within the job. `media_type` is the Content-Type of the answer, such as "text/csv".
    """

    name: str
    media_type: str
    content: bytes


@dataclass(frozen=True)
class Output:
    """Return this from a handler whose result has files.

    `result` is any value that can be encoded as JSON. `files` is a tuple of File.
    """

    result: Any
    files: tuple[File, ...] = ()


ReportProgress = Callable[[float, str], None]
progress_of_attempt: ContextVar[ReportProgress] = ContextVar("progress_of_attempt")


def progress(fraction: float, message: str = "") -> None:
    """Report the progress of the running job: a fraction from 0 to 1, and a message for people.

    Calls are cheap: the worker writes only the latest report to the database, twice a second. A fraction outside 0 to 1
    is clamped. Outside a job, such as in a test that calls the task's function, this does nothing.
    """
    report = progress_of_attempt.get(None)
    if report is not None:
        report(min(1.0, max(0.0, fraction)), message)
