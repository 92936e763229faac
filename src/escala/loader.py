"""Loading what escala.toml names: "module:attribute" and modules with tasks."""

import importlib
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from escala.errors import AppLoadError
from escala.tasks.task import Task


def load_app(target: str) -> Callable[..., Any]:
    """Return the ASGI app that "module:attribute" names; AppLoadError says which part failed."""
    module_name, _, path = target.partition(":")
    found: Any = _import(target, module_name)
    walked = module_name
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            raise AppLoadError(target, f"{walked} has no attribute {attribute!r}")
        found = getattr(found, attribute)
        walked = f"{walked}.{attribute}"
    if not callable(found):
        raise AppLoadError(target, f"{walked} is not an ASGI app but a {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def load_tasks(module_name: str) -> dict[str, Task[..., Any]]:
    """Return the tasks that a module defines or imports, by name."""
    module = _import(module_name, module_name)
    tasks: dict[str, Task[..., Any]] = {}
    for value in vars(module).values():
        if isinstance(value, Task) and tasks.setdefault(value.name, value) is not value:
            raise AppLoadError(module_name, f"two tasks are named {value.name!r}; give one a name of its own")
    if not tasks:
        raise AppLoadError(module_name, "the module has no tasks; decorate a function with @escala.task")
    return tasks


def _import(target: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise AppLoadError(target, f"there is no module {missing!r} in {_places()}") from None
        raise AppLoadError(target, _cause(error)) from error
    except Exception as error:  # the user's own code: whatever it raises is the reason
        raise AppLoadError(target, _cause(error)) from error


def _places() -> str:
    return f"{sys.path[0] or '.'} or the installed packages"


def _cause(error: Exception) -> str:
    """Word an error raised by the user's module, with the line that raised it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    last = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError) or not frames:
        return f"{last} ({getattr(error, 'filename', '')}:{getattr(error, 'lineno', '')})".replace(" (:)", "")
    place = next((f for f in reversed(frames) if not f.filename.startswith("<")), frames[-1])
    return f"{last} ({place.filename}:{place.lineno})"
