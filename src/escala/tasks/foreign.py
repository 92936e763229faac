"""New jobs on connections of other libraries, inside their transactions: SQLAlchemy, psycopg, Django.

None of these is imported here: the caller has the connection.
"""

import re
import sys
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

from escala.database.statements import statement
from escala.tasks.enqueuing import as_json
from escala.tasks.job import Job

if TYPE_CHECKING:
    from escala.tasks.order import NewJob

Steps = Generator[tuple[str, list[Any]], Any, list[Job]]
"""Statements with their parameters. Each is answered with the first value of its result."""

_PARAMETER = re.compile(r"\$(\d+)")


def steps(rows: "Sequence[NewJob]", unique: str | None, seconds: float) -> Steps:
    """Yield the statements that write jobs. With a `unique` key it is one job, unless one of that key exists."""
    if unique is not None:
        [row] = rows
        yield "lock_unique", [unique]
        if (yield "unique", [unique, row.id, seconds]) is None:
            holder = yield "unique_holder", [unique]
            return [Job(str(holder), row.task, is_new=False)]
    if rows:
        yield "enqueue", [as_json(rows)]
    return [Job(str(row.id), row.task) for row in rows]


def is_async(connection: Any) -> bool:
    """Whether the connection, or session, is to be awaited. Raises TypeError for what is neither kind of connection."""
    if _is_any(connection, "sqlalchemy.ext.asyncio", "AsyncConnection", "AsyncSession"):
        return True
    if _is_any(connection, "psycopg", "AsyncConnection"):
        return True
    if _is_sqlalchemy(connection) or hasattr(connection, "cursor"):
        return False
    raise TypeError(
        f"a {type(connection).__qualname__} is no connection that is known here; give one of asyncpg, SQLAlchemy, "
        "psycopg or Django"
    )


async def run_async(connection: Any, work: Steps) -> list[Job]:
    """Run statements on an async connection of SQLAlchemy or psycopg."""
    answer: Any = None
    while True:
        try:
            name, parameters = work.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if _is_any(connection, "psycopg", "AsyncConnection"):
            cursor = await connection.execute(*_pyformat(name, parameters))
            row = await cursor.fetchone()
        else:
            row = (await connection.execute(*_sqlalchemy(name, parameters))).first()
        answer = row[0] if row else None


def run_sync(connection: Any, work: Steps) -> list[Job]:
    """Run statements on a connection or session of SQLAlchemy, psycopg, or Django."""
    answer: Any = None
    while True:
        try:
            name, parameters = work.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if _is_sqlalchemy(connection):
            row = connection.execute(*_sqlalchemy(name, parameters)).first()
        else:
            with connection.cursor() as cursor:
                cursor.execute(*_pyformat(name, parameters))
                row = cursor.fetchone()
        answer = row[0] if row else None


def _is_sqlalchemy(connection: Any) -> bool:
    return _is_any(connection, "sqlalchemy.engine", "Connection") or _is_any(
        connection, "sqlalchemy.orm", "Session", "scoped_session"
    )


def _is_any(connection: Any, module: str, *names: str) -> bool:
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(connection, tuple(getattr(loaded, name) for name in names))


def _pyformat(name: str, parameters: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    text = _without_comments(statement("escala.tasks", name)).replace("%", "%%")
    return _PARAMETER.sub(r"%(p\1)s", text), _named(parameters)


def _sqlalchemy(name: str, parameters: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    text: Callable[[str], Any] = sys.modules["sqlalchemy"].text
    return text(_PARAMETER.sub(r":p\1", _without_comments(statement("escala.tasks", name)))), _named(parameters)


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))


def _named(parameters: Sequence[Any]) -> dict[str, Any]:
    return {f"p{number}": value for number, value in enumerate(parameters, 1)}
