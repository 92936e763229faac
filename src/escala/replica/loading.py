"""Load what escala.toml names: an app as "module:attribute", or a module with tasks."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from escala.errors import AppLoadError
from escala.replica.wsgi.server import WsgiServer
from escala.tasks.task import Task


def load_app(target: str, *, interface: str = "auto", factory: bool = False, threads: int = 10) -> Callable[..., Any]:
    """Return the app that "module:attribute" names, as an ASGI app.

    With `factory`, the attribute is a function without arguments that returns the app. A WSGI app (PEP 3333) runs in a
    pool of `threads` threads. With `interface` "auto", an app whose call takes two arguments is a WSGI app. Raises
    AppLoadError, which says what failed.
    """
    module_name, _, path = target.partition(":")
    found: Any = _import(target, module_name)
    walked = module_name
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            raise AppLoadError(target, f"{walked} has no attribute {attribute!r}")
        found = getattr(found, attribute)
        walked = f"{walked}.{attribute}"
    if factory and callable(found):
        try:
            found = found()
        except Exception as error:  # the user's own code: whatever it raises is the reason
            raise AppLoadError(target, _cause(error)) from error
        walked = f"what {walked}() returned"
    if not callable(found):
        raise AppLoadError(target, f"{walked} is not an ASGI app but a {type(found).__name__}")
    if interface == "wsgi" or (interface == "auto" and _is_wsgi(found)):
        return WsgiServer(found, threads)
    if not factory and interface == "auto" and _takes(found) == 0:
        raise AppLoadError(target, f"{walked} takes no arguments, so it seems to be a factory; set factory = true")
    return found  # type: ignore[no-any-return]


def _is_wsgi(app: Callable[..., Any]) -> bool:
    called = app if inspect.isroutine(app) or inspect.isclass(app) else type(app).__call__
    return not inspect.iscoroutinefunction(called) and not inspect.isclass(app) and _takes(app) == 2


def _takes(app: Callable[..., Any]) -> int | None:
    """Return the number of required positional arguments of a call, or None if that is unknown."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty for p in parameters)


def load_tasks(module_name: str) -> dict[str, Task[..., Any]]:
    """Return the tasks that a module defines or imports, by name.

    Raises AppLoadError if the module cannot be imported, has no tasks, has two tasks with the same name, or one whose
    annotations cannot be resolved.
    """
    module = _import(module_name, module_name)
    tasks: dict[str, Task[..., Any]] = {}
    for value in vars(module).values():
        if isinstance(value, Task) and tasks.setdefault(value.name, value) is not value:
            raise AppLoadError(module_name, f"two tasks are named {value.name!r}; rename one of them")
    if not tasks:
        raise AppLoadError(module_name, "the module has no tasks; decorate a function with @escala.task")
    for task in tasks.values():
        try:
            task.arguments.prepare()
        except TypeError as error:
            raise AppLoadError(module_name, str(error)) from None
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
    """Describe an exception raised by the user's module, with the line that raised it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    last = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError) or not frames:
        return f"{last} ({getattr(error, 'filename', '')}:{getattr(error, 'lineno', '')})".replace(" (:)", "")
    place = next((f for f in reversed(frames) if not f.filename.startswith("<")), frames[-1])
    return f"{last} ({place.filename}:{place.lineno})"
