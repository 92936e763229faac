"""Whether a value that was encoded and decoded is still the same one, and where it is not."""

import dataclasses
import math
from decimal import Decimal
from typing import Any


def equal(value: Any, kept: Any) -> bool:
    """Return whether two values are equal in all their parts. NaN is equal to itself here."""
    return bool(value == kept) or difference(value, kept) is None


def difference(value: Any, kept: Any, place: str = "value") -> str | None:
    """Return the place where two values differ, and how. NaN is equal to itself here."""
    if value is kept or _are_nan(value, kept):
        return None
    if type(value) is type(kept) and (members := _members(value, kept, place)) is not None:
        return next((found for one, other, where in members if (found := difference(one, other, where))), None)
    if value == kept:
        return None
    return f"{place} is a {type(value).__qualname__}, and would be a {type(kept).__qualname__}"


def _are_nan(value: Any, kept: Any) -> bool:
    if type(value) is not type(kept) or not isinstance(value, float | Decimal):
        return False
    return math.isnan(value) and math.isnan(kept)


def _members(value: Any, kept: Any, place: str) -> list[tuple[Any, Any, str]] | None:
    """Return the pairs of parts of two values of one type; None if they have no comparable parts."""
    if isinstance(value, dict) and value.keys() == kept.keys():
        return [(value[name], kept[name], f"{place}[{name!r}]") for name in value]
    if isinstance(value, list | tuple) and len(value) == len(kept):
        return [(one, other, f"{place}[{i}]") for i, (one, other) in enumerate(zip(value, kept, strict=True))]
    names: Any = getattr(value, "__struct_fields__", None)
    if (model := getattr(type(value), "__pydantic_fields__", None)) is not None:
        names = [*model, "__pydantic_extra__", "__pydantic_private__"]
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
    if names:
        return [(getattr(value, name), getattr(kept, name), f"{place}.{name}") for name in names]
    return None
