"""Steps of a job: each is done once, also if the job takes several attempts."""

import inspect
import uuid
from collections.abc import Callable
from typing import Any, get_type_hints

from escala import database
from escala.database.statements import statement
from escala.errors import LeaseLost
from escala.tasks.arguments import decode_result, encode_result


class Steps:
    """The steps of one attempt."""

    def __init__(self, job: uuid.UUID, attempt: int, owner: uuid.UUID) -> None:
        self._job = job
        self._attempt = attempt
        self._owner = owner
        self._done: dict[str, str] | None = None
        """What earlier attempts recorded, as JSON by name; None while that was not read."""
        self._named: set[str] = set()

    async def run(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the recorded result of a step, or call its function and record what it returns."""
        if name in self._named:
            raise ValueError(f"the job has two steps {name!r}; give each a name of its own")
        self._named.add(name)
        if self._done is None:
            async with database.connection() as connection:
                rows = await connection.fetch(statement("escala.tasks", "steps"), self._job)
            self._done = {row[0]: row[1] for row in rows}
        kind = get_type_hints(function).get("return", Any)
        if (text := self._done.get(name)) is None:
            value = function(*args, **kwargs)
            if inspect.isawaitable(value):
                value = await value
            text = encode_result(value)
            async with database.connection() as connection:
                if not await connection.fetchval(
                    statement("escala.tasks", "step"), self._job, self._attempt, self._owner, name, text
                ):
                    raise LeaseLost(str(self._job), name)
        return decode_result(text, kind)
