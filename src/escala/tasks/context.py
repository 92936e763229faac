"""What a handler knows of the job that it runs."""

import inspect
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextvars import ContextVar
from functools import cached_property
from typing import Any, ParamSpec, TypeVar, overload

from escala.units import parse_duration

log = logging.getLogger("escala.job")

P = ParamSpec("P")
R = TypeVar("R")

StepRunner = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Awaitable[Any]]


NOTHING_REPORTED: tuple[float, str] = (0.0, "")


class JobContext:
    """The running job, for a handler that has a parameter ``job``: ``async def report(job: JobContext, month: int)``.

    Its methods may be called from any thread.
    """

    def __init__(self, job: str | uuid.UUID, task: str, attempt: int, trace: str | None = None) -> None:
        self._job = job
        self.task = task
        self.attempt = attempt
        """1 for the first attempt; also counts attempts that ended with their worker."""
        self.trace = trace
        """The traceparent (W3C Trace Context) of the request that enqueued the job; None without one."""
        self.reported = NOTHING_REPORTED
        """The latest progress and message."""
        self.steps: StepRunner | None = None
        self.cancelled = False
        """Whether the handler is to stop: its job was cancelled, its time is over, or its worker stops.

        An async handler is cancelled. A plain one has to look here.
        """

    @property
    def id(self) -> str:
        return str(self._job)

    @overload
    async def step(
        self, name: str, function: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def step(self, name: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...
    async def step(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function once for the job: ``receipt = await job.step("charge", charge, order)``.

        What it returns is recorded. A later attempt of the job gets that, and does not call the function again. It is
        kept as JSON and comes back with the function's annotated type. If the process dies between the call and the
        record, the function is called again.

        Raises LeaseLost if another worker has the job by now, and ValueError for a name that was used already, or a
        result that JSON cannot hold.
        """
        if self.steps is None:  # a test that calls the task's function
            value = function(*args, **kwargs)
            return await value if inspect.isawaitable(value) else value
        return await self.steps(name, function, args, kwargs)

    @cached_property
    def log(self) -> "logging.LoggerAdapter[logging.Logger]":
        """A logger whose lines begin with the job's task and id."""
        return _JobLog(log, {"job": self.id, "task": self.task, "attempt": self.attempt})

    def progress(self, fraction: float, message: str = "") -> None:
        """Report progress: a fraction from 0 to 1, which is clamped, and a message for people.

        Calls are cheap: the worker writes only the latest report to the database, once a second.
        """
        self.reported = min(1.0, max(0.0, fraction)), message


class _JobLog(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        assert self.extra is not None
        kwargs["extra"] = {**self.extra, **kwargs.get("extra", {})}
        return f"{self.extra['task']} {self.extra['job']}: {msg}", kwargs


current_job: ContextVar[JobContext] = ContextVar("current_job")


def progress(fraction: float, message: str = "") -> None:
    """Report the progress of the running job, as `JobContext.progress` does.

    Outside a job, such as in a test that calls the task's function, this does nothing.
    """
    job = current_job.get(None)
    if job is not None:
        job.progress(fraction, message)


class Snooze(Exception):
    """Raise this in a handler to try the job again after a while. The attempt does not count as a failure.

    ``raise Snooze("5m")``. Raises ValueError if `after` is not a duration.
    """

    def __init__(self, after: str) -> None:
        super().__init__(f"snoozed for {after}")
        self.seconds = parse_duration(after)
