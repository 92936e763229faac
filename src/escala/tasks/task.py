"""A task: a registered function. Calling it runs it in this process; enqueueing it creates a job for a worker."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from escala.tasks import retries as retrying
from escala.tasks.arguments import Arguments
from escala.tasks.context import JobContext
from escala.tasks.cron import Cron
from escala.tasks.job import Job
from escala.tasks.limits import Limits
from escala.tasks.order import NewJob, Options, Order, changed, priority_in_range
from escala.tasks.retries import Retries, RetryPolicy
from escala.units import parse_duration
from escala.values.names import function_name, module_name

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_TIMEOUT = "10m"
DEFAULT_KEEP = "7d"


class Task(Generic[P, R]):
    """A function that workers run. Create one with `@task`. Calling the task runs the function here, without a job."""

    def __init__(
        self,
        function: Callable[..., R],
        *,
        name: str,
        retries: RetryPolicy,
        timeout: float,
        process: bool,
        limits: Limits,
        cron: Cron | None,
        options: Options,
    ) -> None:
        update_wrapper(self, function)
        self.function = function
        self.name = name
        self.retries = retries
        self.timeout = timeout
        """Seconds."""
        self.process = process
        self.queue = options.queue
        self.is_async = inspect.iscoroutinefunction(function)
        if process and self.is_async:
            raise TypeError(f"task {name!r}: process=True is for plain functions; an async one runs on the event loop")
        self.arguments = Arguments(function, name)
        self.limits = limits
        limits.require(self.arguments.names)
        self.cron = cron
        if cron is not None and (required := self.arguments.required):
            raise TypeError(f"task {name!r} has a cron, so its argument {required[0]!r} needs a default")
        self._options = options
        self._order = Order(self, options)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.arguments.wants_job:
            return self.function(**self.arguments.with_job(args, kwargs, JobContext("", self.name, 1)))
        return self.function(*args, **kwargs)

    async def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Create a job that calls the function with these arguments, and return it.

        When this returns, the job is committed, and a worker will run it.

        Raises TaskArguments if the arguments do not fit the function or cannot be kept, NotConnected before the
        database is connected, DatabaseUnavailable if PostgreSQL is unavailable, and PoolExhausted if no connection
        becomes free in time.
        """
        return await self._order.enqueue(*args, **kwargs)

    async def enqueue_many(self, calls: Iterable[Mapping[str, Any]], /) -> list[Job]:
        """Create a job for each call, given as a dict of its arguments, in one transaction; return the jobs.

        Errors are those of `enqueue`. If one is raised, no job exists.
        """
        return await self._order.enqueue_many(calls)

    def enqueue_sync(self, /, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Do what `enqueue` does, and wait for it: for plain code, as in Django or Flask.

        Raises CalledOnLoop on an event loop's thread, and what `enqueue` raises.
        """
        return self._order.enqueue_sync(*args, **kwargs)

    def enqueue_many_sync(self, calls: Iterable[Mapping[str, Any]], /) -> list[Job]:
        """Do what `enqueue_many` does, and wait for it."""
        return self._order.enqueue_many_sync(calls)

    def new_job(self) -> NewJob:
        """Return the row of a job with all defaults, for a tick of its cron."""
        return self._order.new_job()

    def with_options(
        self,
        *,
        at: datetime | None = None,
        after: str | timedelta | None = None,
        priority: int | None = None,
        queue: str | None = None,
        expires: str | None = None,
        connection: Any = None,
    ) -> Order[P, R]:
        """Return the task with other options: ``await report.with_options(after="10m").enqueue(month=1)``.

        at: the moment, with a time zone, before which the job does not run.
        after: how long to wait before the job may run, counted by the database's clock.
        priority: jobs of a higher priority run before others of their queue; the default is the task's.
        queue: another queue than the task's. A worker must serve it.
        expires: a job that has not begun so long after it was due is not run any more; it fails.
        connection: the job exists exactly if its open transaction is committed. A connection of asyncpg, a connection
            or session of SQLAlchemy, a connection of psycopg, or ``django.db.connection``.

        Raises ValueError for an option that is not possible.
        """
        options = changed(
            self._options,
            at=at,
            after=after,
            priority=priority,
            queue=queue,
            expires=expires,
            connection=connection,
        )
        return Order(self, options)


class Decorator(Protocol):
    @overload
    def __call__(self, function: Callable[Concatenate[JobContext, P], R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(function: Callable[Concatenate[JobContext, P], R], /) -> Task[P, R]: ...
@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    queue: str | None = None,
    priority: int = 0,
    retries: Retries = retrying.DEFAULT,
    backoff: str = "1s",
    longest_backoff: str = "5m",
    timeout: str = DEFAULT_TIMEOUT,
    expires: str | None = None,
    keep: str = DEFAULT_KEEP,
    process: bool = False,
    concurrency: int | None = None,
    concurrency_key: str | None = None,
    rate: str | None = None,
    unique: str | bool = False,
    unique_for: str | None = None,
    cron: str | None = None,
    timezone: str = "UTC",
) -> Decorator: ...
def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str | None = None,
    priority: int = 0,
    retries: Retries = retrying.DEFAULT,
    backoff: str = "1s",
    longest_backoff: str = "5m",
    timeout: str = DEFAULT_TIMEOUT,
    expires: str | None = None,
    keep: str = DEFAULT_KEEP,
    process: bool = False,
    concurrency: int | None = None,
    concurrency_key: str | None = None,
    rate: str | None = None,
    unique: str | bool = False,
    unique_for: str | None = None,
    cron: str | None = None,
    timezone: str = "UTC",
) -> Any:
    """Register a function as a task: ``@task`` or ``@task(retries=5, timeout="10m")``. Does no I/O.

    A parameter ``job`` gets the `JobContext`; callers do not pass it. For type checkers it comes first:
    ``async def report(job: JobContext, month: int)``.

    The decorated function becomes a `Task`. An async function runs on the worker's event loop for jobs, a plain one in
    a thread, and with ``process=True`` in a process of its own, for work that needs a whole processor.

    name: identifies the task in the queue; by default the module and name of the function.
    queue: where its jobs wait; by default a queue with the name of the module.
    priority: from -1000 to 1000. Jobs of a higher priority run before others of their queue.
    retries: how many failed attempts are repeated, or a dict of these numbers by class of exception, such as
        ``{ConnectionError: 10, ValueError: 0}``. Exceptions of no class in the dict are not repeated.
    backoff, longest_backoff: the pause before the second attempt, which doubles each time, and its limit. A random
        quarter is added or taken off.
    timeout: the maximum duration of one attempt, counted from its beginning. The thread of a plain function cannot be
        stopped: it goes on, and its result is discarded. A process is killed.
    expires: a job that has not begun so long after it was due is not run any more; it fails. By default it waits.
    keep: how long a finished job is kept with its result.
    concurrency: how many jobs of the task run at a time, over all workers; with a concurrency_key such as
        ``"{customer}"``, how many of each key, which names arguments.
    rate: how many jobs begin in a time, over all workers, such as ``"10/1m"``.
    unique: a key such as ``"{customer}"``, or True for all arguments. While a job of the same key has not finished,
        `enqueue` returns that one instead of a new one; with unique_for also so long after it was enqueued.
    cron, timezone: when a job is made by itself, such as ``"0 3 * * 1-5"`` in ``"Europe/Madrid"`` (crontab(5)): one for
        each tick, however many workers there are. Of the ticks while no worker ran, the latest is made up for.

    Raises ValueError for a value that is not possible. Raises TypeError if an argument of the function cannot be passed
    by name, or if the function has no name of its own and `name` gives none.
    """
    policy = RetryPolicy.of(retries, backoff, longest_backoff)
    priority_in_range(priority)

    def decorate(function: Callable[..., R]) -> Task[..., R]:
        if not inspect.isroutine(function):
            raise TypeError(f"a task is a function, not {function!r}")
        named = name or function_name(function, 'task(name="...")')
        options = Options(
            priority=priority,
            queue=queue or module_name(function.__module__),
            expires=parse_duration(expires) if expires else None,
            keep=parse_duration(keep),
        )
        limits = Limits(
            named,
            concurrency=concurrency,
            concurrency_key=concurrency_key,
            rate=rate,
            unique=unique,
            unique_for=unique_for,
        )
        return Task(
            function,
            name=named,
            retries=policy,
            timeout=parse_duration(timeout),
            process=process,
            limits=limits,
            cron=Cron(cron, timezone) if cron is not None else None,
            options=options,
        )

    return decorate(function) if function is not None else decorate
