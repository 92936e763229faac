"""The scripts that Valkey runs, each of them as one atomic step."""

from functools import cache
from importlib import resources


@cache
def script(name: str) -> str:
    """Return the text of `name`.lua."""
    return (resources.files(__name__) / f"{name}.lua").read_text(encoding="utf-8")
