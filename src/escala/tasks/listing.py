"""What a worker has, for those that do not import its module: its tasks by name, with the functions behind them."""

from collections.abc import Mapping
from typing import Any

import msgspec

from escala.errors import TaskClash
from escala.tasks.task import Task


class ListedTask(msgspec.Struct):
    queue: str
    function: str
    """Its module and name."""


def listed(tasks: Mapping[str, Task[..., Any]]) -> dict[str, ListedTask]:
    found = {}
    for name, task in sorted(tasks.items()):
        found[name] = ListedTask(task.queue, f"{task.function.__module__}.{task.function.__qualname__}")
    return found


def require_one_function(mine: Mapping[str, ListedTask], theirs: Mapping[str, ListedTask], other: str) -> None:
    """Raise TaskClash if a name stands for one function here, and for another one in the service `other`."""
    for name in mine.keys() & theirs.keys():
        if mine[name].function != theirs[name].function:
            raise TaskClash(name, mine[name].function, theirs[name].function, other)
