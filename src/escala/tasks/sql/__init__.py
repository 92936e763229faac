"""The SQL statements of the queue, one per file, loaded by name."""

from functools import cache
from importlib import resources


@cache
def statement(name: str) -> str:
    """Return the text of `name`.sql."""
    return (resources.files(__name__) / f"{name}.sql").read_text(encoding="utf-8")
