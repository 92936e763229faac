"""SQL statements, one a file, loaded by name."""

from functools import cache
from importlib import resources


@cache
def statement(package: str, name: str) -> str:
    """Return the text of `name`.sql in a package's folder `sql`."""
    return (resources.files(package) / "sql" / f"{name}.sql").read_text(encoding="utf-8")
