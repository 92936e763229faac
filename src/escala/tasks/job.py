"""A job as its caller sees it, and what a handler can return."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec


@dataclass(frozen=True)
class Job:
    """An enqueued job: its id and the name of its task."""

    id: str
    task: str
    is_new: bool = True
    """False if the task is `unique`, and this job existed already."""


class JobRecord(msgspec.Struct, kw_only=True):
    """A job as stored in the database, with the fields that GET /jobs/{id} returns."""

    id: uuid.UUID
    task: str
    queue: str
    priority: int
    arguments: dict[str, Any]
    state: str
    """scheduled, waiting, running, succeeded, failed or cancelled"""
    attempt: int
    progress: float
    """0 to 1"""
    message: str
    result: Any
    error: str | None
    enqueued_at: datetime
    run_at: datetime | None
    """When it is due; None once it has finished."""
    started_at: datetime | None
    finished_at: datetime | None
    files: list[str]
    subject: str | None
    """Who enqueued it: the subject of an access token; None if there was none."""


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
