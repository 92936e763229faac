"""SQL statements, one per file, loaded by name."""

from functools import cache
from importlib import resources


@cache
def statement(package: str, name: str) -> str:
    """Return the text of the file `name`.sql in the folder `sql` of `package`."""
    return (resources.files(package) / "sql" / f"{name}.sql").read_text(encoding="utf-8")
