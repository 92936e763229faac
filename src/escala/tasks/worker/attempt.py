"""One attempt of a job in this process, and its outcome."""

import asyncio
import traceback
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from escala.errors import TaskArguments
from escala.tasks.arguments import encode_result
from escala.tasks.context import JobContext, Snooze
from escala.tasks.job import File, Output
from escala.tasks.steps import Steps
from escala.tasks.store.attempts import Claimed
from escala.tasks.task import Task

MOST_WORDS = 4000
"""Characters of an error that are kept."""
_PATIENT_ATTEMPTS = 10
"""So often a job whose arguments do not fit is left for another version of the code: for about five minutes."""
_LONGEST_PAUSE = 60.0

Reason: TypeAlias = Literal["timeout", "cancelled", "lost", "stopping"]
"""Why a handler is interrupted: its time is over, its job was cancelled, its lease has ended, or its worker stops."""


class AttemptTimedOut(TimeoutError):
    """An attempt took longer than its task's timeout."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no result within {seconds:g} s")


class Outcome(msgspec.Struct, frozen=True):
    """How an attempt ended."""

    state: Literal["succeeded", "failed", "again", "cancelled", "released", "crashed", "lost"]
    """again: it is tried once more. released: the worker stops. crashed: its own process ended. lost: nothing is
    written, as another worker may have the job."""
    result: str | None = None
    """JSON"""
    error: str | None = None
    pause: float = 0.0
    """Seconds until it is tried again."""
    counts: bool = False
    """Whether the attempt counts as a failure."""
    files: tuple[File, ...] = ()


class Attempt:
    """A claimed job. `began`, `interrupted` and `runner` change while it runs."""

    __slots__ = (
        *("began", "context", "interrupt_arrived", "interrupted", "interrupted_at"),
        *("job", "owner", "reported", "runner", "settled", "task"),
    )

    def __init__(self, job: Claimed, task: Task[..., Any], owner: uuid.UUID) -> None:
        self.job = job
        self.task = task
        self.owner = owner
        self.context = JobContext(job.id, task.name, job.attempt, job.trace)
        self.began: float | None = None
        """time.monotonic() when the handler was called; None before."""
        self.interrupted: Reason | None = None
        self.interrupted_at = 0.0
        self.interrupt_arrived = False
        """Whether the event loop of the handlers has taken note of it."""
        self.runner: asyncio.Task[None] | None = None
        """The task of an async handler."""
        self.reported = self.context.reported
        """The progress that was written last."""
        self.settled = False
        """Whether its outcome is known. Its handler may still run."""

    def __str__(self) -> str:
        return f"{self.job.task} {self.job.id}, attempt {self.job.attempt}"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments for the handler. Raises TaskArguments if they do not fit."""
        found = self.task.arguments.decode(self.job.arguments)
        if self.task.arguments.wants_job:
            self.context.steps = Steps(self.job.id, self.job.attempt, self.owner).run
            found["job"] = self.context
        return found


Done: TypeAlias = Callable[[Sequence[tuple[Attempt, Outcome]]], None]
"""Takes outcomes of attempts on the worker's own event loop."""


def succeeded(attempt: Attempt, value: Any) -> Outcome:
    """Return the outcome of a handler that returned `value`."""
    output = value if isinstance(value, Output) else Output(value)
    try:
        result = encode_result(output.result)
        files = _checked(output.files)
    except (ValueError, TypeError, AttributeError) as error:
        return Outcome("failed", error=f"the result cannot be stored: {error}", counts=True)
    return Outcome("succeeded", result=result, files=files)


def raised(attempt: Attempt, error: BaseException) -> Outcome:
    """Return the outcome of a handler that raised, whatever it raised."""
    if attempt.interrupted is not None:
        return interrupted(attempt)
    if isinstance(error, Snooze):
        return Outcome("again", error=str(error), pause=error.seconds)
    if isinstance(error, TaskArguments) and attempt.began is None:
        return _misfit(attempt, error)
    if isinstance(error, asyncio.CancelledError):
        return _failed(attempt, error, "the handler was cancelled by its own code")
    return _failed(attempt, error, described(error))


def interrupted(attempt: Attempt) -> Outcome:
    """Return the outcome of a handler that was interrupted."""
    if attempt.interrupted == "timeout":
        error = AttemptTimedOut(attempt.task.timeout)
        return _failed(attempt, error, str(error))
    if attempt.interrupted == "cancelled":
        return Outcome("cancelled", error="it was cancelled while it ran")
    return Outcome("released" if attempt.interrupted == "stopping" else "lost")


def unknown(job: Claimed) -> Outcome:
    """Return the outcome of a job whose task this worker does not have."""
    return Outcome(
        "again",
        error=f"no worker of the queue {job.queue!r} has a task {job.task!r}; was it renamed or removed?",
        pause=min(_LONGEST_PAUSE, 2.0 ** min(job.attempt, 10)),
    )


def _misfit(attempt: Attempt, error: TaskArguments) -> Outcome:
    """During a rollout, the code that enqueued may be newer or older than this one: another worker may be able."""
    if attempt.job.attempt < _PATIENT_ATTEMPTS:
        return Outcome("again", error=str(error), pause=min(_LONGEST_PAUSE, 2.0 ** (attempt.job.attempt - 1)))
    return Outcome("failed", error=str(error), counts=True)


def _failed(attempt: Attempt, error: BaseException, words: str) -> Outcome:
    failures, policy = attempt.job.failures, attempt.task.retries
    if failures < policy.allowed(error):
        return Outcome("again", error=words, pause=policy.pause(failures), counts=True)
    return Outcome("failed", error=words, counts=True)


def _checked(files: tuple[File, ...]) -> tuple[File, ...]:
    names: set[str] = set()
    for file in files:
        for text in (file.name, file.media_type):
            text.encode()
            if "\0" in text:
                raise ValueError(f"a NUL character in {text!r}")
        if not isinstance(file.content, bytes):
            raise TypeError(f"the content of the file {file.name!r} is not bytes")
        if file.name in names:
            raise ValueError(f"two files are named {file.name!r}")
        names.add(file.name)
    return tuple(files)


def described(error: BaseException) -> str:
    """Describe an exception for the job's record: its type, its message, and the line that raised it."""
    try:
        text = traceback.format_exception_only(error)[-1].strip()
    except BaseException as failure:  # of the exception's own __str__
        text = f"{type(error).__qualname__} (its text cannot be had: {type(failure).__qualname__})"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" (line {frames[-1].lineno} of {frames[-1].filename.rpartition('/')[2]})" if frames else ""
    text = text.encode("utf-8", "replace").decode()  # a file name may contain surrogates
    if len(text) > MOST_WORDS:
        text = f"{text[:MOST_WORDS]}... ({len(text) - MOST_WORDS} more characters)"
    return text + place
