"""Names of functions that are the same in every process."""

import inspect
import pathlib
import sys
from collections.abc import Callable
from typing import Any


def function_name(function: Callable[..., Any], remedy: str) -> str:
    """Return the name of a function: its module and qualified name.

    Raises TypeError for a lambda and for a function that is made inside another one: several may have that name.
    `remedy` ends the message.
    """
    function = inspect.unwrap(function)
    name = getattr(function, "__qualname__", None)
    if name is None or "<" in name:
        raise TypeError(
            f"{name or function!r} is not defined at the top of a module or class, so other functions may have its "
            f"name; give it one of its own: {remedy}"
        )
    return f"{module_name(function.__module__)}.{name}"


def module_name(name: str) -> str:
    """Return a module's name. Every script that is run is called `__main__`, so its file tells it from others."""
    if name != "__main__":
        return name
    main = sys.modules["__main__"]
    if spec := getattr(main, "__spec__", None):
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return f"{name}[{pathlib.Path(file).resolve()}]" if file else name
