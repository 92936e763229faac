"""Messages for configuration errors: the key path, what is wrong, the received value, and a suggestion."""

import difflib
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from escala.config.secrets import HIDDEN, is_secret

Location = tuple[int | str, ...]


def explain(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """Return the messages for all errors that pydantic found in a `root` model, one per line."""
    return [line for details in error.errors(include_url=False) for line in _lines(details, root)]


def key_path(location: Sequence[int | str]) -> str:
    """Return a location as a key path, such as "services.api.routes[0].path"."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _lines(details: ErrorDetails, root: type[BaseModel]) -> Iterator[str]:
    location: Location = tuple(part for part in details["loc"] if part != "[key]")
    path, kind, received = key_path(location), details["type"], details["input"]
    if kind == "extra_forbidden":
        yield f"{path}: unknown key{_suggestion(str(location[-1]), _keys_at(root, location[:-1]))}"
    elif kind == "missing":
        yield f"{path}: required, but missing"
    elif kind == "value_error":
        reason = str(details["ctx"]["error"]) if "ctx" in details else details["msg"]
        if isinstance(received, dict):  # a check across keys: without a path, each line of its message names its own
            yield from (f"{path}: {line}" if path else line for line in reason.splitlines())
        else:
            yield f"{path}: {reason}; received {_show(root, location, received)}"
    else:
        message = _MESSAGES.get(kind, details["msg"]).format(**details.get("ctx", {}))
        yield f"{path}: {message}; received {_show(root, location, received)}"


_MESSAGES = {
    "literal_error": "expected {expected}",
    "string_type": "expected a string",
    "int_type": "expected a whole number",
    "bool_type": "expected true or false",
    "path_type": "expected a path",
    "tuple_type": "expected a list",
    "dict_type": "expected a table",
    "model_type": "expected a table",
    "model_attributes_type": "expected a table",
    "greater_than_equal": "expected at least {ge}",
    "less_than_equal": "expected at most {le}",
    "too_short": "expected at least {min_length}",
    "string_too_short": "expected a non-empty string",
    "string_too_long": "expected at most {max_length} characters",
}


def _show(root: type[BaseModel], location: Location, value: Any) -> str:
    if is_secret(root, location):
        return HIDDEN
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _suggestion(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; valid keys: {', '.join(known)}" if known else ""


def _keys_at(root: type[BaseModel], location: Location) -> list[str]:
    """Return the valid keys of the model at `location`."""
    here: Any = root
    for part in location:
        model = _model(here)
        if model is not None:
            field = model.model_fields.get(str(part))
            here = field.annotation if field else None
        else:  # a dict's value or a tuple's item
            arguments = [a for a in typing.get_args(here) if a is not Ellipsis]
            here = arguments[-1] if arguments else None
    model = _model(here)
    return list(model.model_fields) if model else []


def _model(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
