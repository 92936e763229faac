"""The parts of a declared type, as msgspec sees them."""

from collections.abc import Iterator

from msgspec import inspect as types

from escala.values.models import is_model

CLASSES = (types.StructType, types.DataclassType, types.TypedDictType, types.NamedTupleType)
"""Types with named fields."""


def parts_of(info: types.Type) -> list[types.Type]:
    """Return the types that a type is made of."""
    if isinstance(info, CLASSES):
        return [field.type for field in info.fields]
    if isinstance(info, types.UnionType):
        return list(info.types)
    if isinstance(info, types.TupleType):
        return list(info.item_types)
    if isinstance(info, types.DictType):
        return [info.key_type, info.value_type]
    return [item] if (item := getattr(info, "item_type", None)) is not None else []


def walk(info: types.Type) -> Iterator[types.Type]:
    """Yield a type and all types that it is made of, each class once."""
    seen: set[type] = set()
    waiting = [info]
    while waiting:
        part = waiting.pop()
        if isinstance(part, CLASSES):
            if part.cls in seen:
                continue
            seen.add(part.cls)
        yield part
        waiting += parts_of(part)


def require_declared(info: types.Type) -> None:
    """Raise TypeError if a part of a type is a class without declared fields: it can be neither written nor read."""
    for part in walk(info):
        if isinstance(part, types.CustomType) and not is_model(part.cls):
            raise TypeError(f"values of the type {part.cls.__qualname__} cannot be kept: it has no declared fields")
