"""A task: a registered function. Calling it runs it in this process; enqueueing it creates a job for a worker."""

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, get_type_hints, overload

import asyncpg
import msgspec

from escala import database
from escala.database import Connection
from escala.errors import TaskArguments
from escala.tasks import queue
from escala.tasks.job import Job
from escala.units import parse_duration

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_RETRIES = 3
DEFAULT_TIMEOUT = "10m"


class Task(Generic[P, R]):
    """A function that workers run. Create one with `@task`.

    An async function runs on the worker's event loop for jobs, a plain function in a thread. Its arguments are stored
    as JSON, and are converted to the annotated types. Calling the task runs the function here, without a job.
    """

    def __init__(self, function: Callable[P, R], name: str, retries: int, timeout: str) -> None:
        update_wrapper(self, function)
        self.function = function
        self.name = name
        self.retries = retries
        self.timeout = parse_duration(timeout)
        self.is_async = inspect.iscoroutinefunction(function)
        self._signature = inspect.signature(function)
        for parameter in self._signature.parameters.values():
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(f"task {name!r}: argument {parameter} cannot be passed by name")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    async def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Create a job that calls the function with these arguments, and return it.

        When this returns, the job is committed, and a worker will run it. The arguments are those of the function; they
        must be convertible to JSON and to the annotated types.

        Raises TaskArguments if they do not fit, NotConnected before the database is connected, DatabaseUnavailable if
        PostgreSQL is unavailable, and PoolExhausted if no connection becomes free in time.
        """
        async with database.connection() as connection:
            return await self.enqueue_on(connection, *args, **kwargs)

    async def enqueue_on(self, connection: Connection, /, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Create a job on the caller's connection, and return it.

        The job belongs to the connection's open transaction: it exists once that is committed, and never if it is
        rolled back. Raises TaskArguments if the arguments do not fit the function.
        """
        arguments = self.arguments_of(*args, **kwargs)
        try:
            job = await queue.enqueue(connection, self.name, msgspec.to_builtins(arguments), self.retries)
        except asyncpg.DataError as error:  # such as a NUL character, which PostgreSQL cannot store
            raise TaskArguments(self.name, str(error)) from None
        return Job(str(job), self.name)

    def arguments_of(self, /, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return all arguments by name, converted to the annotated types; raise TaskArguments if they do not fit."""
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TaskArguments(self.name, str(error)) from None
        bound.apply_defaults()
        hints = get_type_hints(self.function, include_extras=True)
        converted = {}
        for name, value in bound.arguments.items():
            try:
                converted[name] = msgspec.convert(msgspec.to_builtins(value), hints.get(name, Any))
            except (msgspec.ValidationError, TypeError) as error:
                raise TaskArguments(self.name, f"{name}: {error}") from None
        return converted


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *, name: str | None = None, retries: int = DEFAULT_RETRIES, timeout: str = DEFAULT_TIMEOUT
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = DEFAULT_RETRIES,
    timeout: str = DEFAULT_TIMEOUT,
) -> Any:
    """Register a function as a task: ``@task`` or ``@task(retries=5, timeout="10m")``. Does no I/O.

    The decorated function becomes a `Task`. `name` identifies the task in the queue; by default it is the function's
    name. `retries` is how many failed attempts are repeated, with a growing delay between attempts. `timeout` is the
    maximum duration of one attempt, with a unit, such as "10m". A plain function runs in a thread, which cannot be
    stopped: it continues after the timeout, but its result is discarded.

    Raises ValueError if `retries` is negative or `timeout` is not a duration, and TypeError if an argument of the
    function cannot be passed by name.
    """
    if retries < 0:
        raise ValueError(f"retries must be 0 or more, not {retries}")

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        return Task(function, name or function.__name__, retries, timeout)

    return decorate(function) if function is not None else decorate
