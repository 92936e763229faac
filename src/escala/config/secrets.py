"""Values that must never be shown; they are marked where they are declared."""

import typing
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel


class _Marker:
    """Marks a type whose values are secret."""


Secret = Annotated[str, _Marker()]
"""A string that no message, log or table shows. Its field needs repr=False, so that tracebacks hide it too."""

HIDDEN = "(hidden)"


def is_secret(root: type[BaseModel], location: Sequence[int | str]) -> bool:
    """Whether the value at a location of a `root` model is secret or contains a secret."""
    here: Any = root
    for part in location:
        here = _below(here, part)
    return _holds_secret(here)


def _below(annotation: Any, part: int | str) -> Any:
    """Return the type of the value at one key or index of a type."""
    for choice in _choices(annotation):
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            field = choice.model_fields.get(str(part))
            if field is not None:
                return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        items = [each for each in typing.get_args(choice) if each is not Ellipsis]
        if typing.get_origin(choice) in (dict, tuple, list) and items:
            return items[-1]
    return None


def _choices(annotation: Any) -> list[Any]:
    """Return the members of a union, without their `Annotated` metadata."""
    if typing.get_origin(annotation) is Annotated:
        return _choices(typing.get_args(annotation)[0])
    if typing.get_args(annotation) and typing.get_origin(annotation) not in (dict, tuple, list):
        return [each for member in typing.get_args(annotation) for each in _choices(member)]
    return [annotation]


def _holds_secret(annotation: Any) -> bool:
    if typing.get_origin(annotation) is Annotated:
        inner, *marks = typing.get_args(annotation)
        return any(isinstance(mark, _Marker) for mark in marks) or _holds_secret(inner)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return any(is_secret(annotation, [name]) for name in annotation.model_fields)
    return any(_holds_secret(each) for each in typing.get_args(annotation))
