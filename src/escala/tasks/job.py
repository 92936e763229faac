"""A job as its callers see it, and what a handler can say and return."""

import uuid
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec


@dataclass(frozen=True)
class Job:
    """An enqueued job. Its id cannot be guessed; who knows it may ask for the job's state."""

    id: str
    task: str


class JobRecord(msgspec.Struct, kw_only=True):
    """A job as the database has it, in the shape that GET /jobs/{id} answers."""

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
    """A file that belongs to a job's result; kept with it, and served at /jobs/{id}/files/{name}."""

    name: str
    media_type: str
    content: bytes


@dataclass(frozen=True)
class Output:
    """What a handler returns when its result has files."""

    result: Any
    files: tuple[File, ...] = ()


ReportProgress = Callable[[float, str], None]
progress_of_attempt: ContextVar[ReportProgress] = ContextVar("progress_of_attempt")


def progress(fraction: float, message: str = "") -> None:
    """Say how far the running job is, 0 to 1. Costs nothing: what was said last is written twice a second.

    Outside a job (a test that calls a task's function) it does nothing.
    """
    report = progress_of_attempt.get(None)
    if report is not None:
        report(min(1.0, max(0.0, fraction)), message)
