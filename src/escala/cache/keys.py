"""Keys: names of cached functions, an injective encoding of arguments, and the texts of tags.

Two calls share an entry only if they name the same function and their arguments have the same types and values. What
has no dependable name or value is refused with a TypeError.
"""

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import cached_property
from types import MappingProxyType
from typing import Any

import msgspec

from escala.values.words import WORDS

_DIGEST_BYTES = 16


def seed(name: str) -> Any:
    """Return what the digests of a function's arguments begin with."""
    return hashlib.blake2b(_encode(name), digest_size=_DIGEST_BYTES)


def digest(begun: Any, values: Iterable[object]) -> str:
    """Return a short text for a list of values: equal only if the seed, the types and the values are equal.

    Raises TypeError if a value has no fields to tell it by.
    """
    whole = begun.copy()
    whole.update(b"".join(map(_encode, values)))
    return str(whole.hexdigest())


def _encode(value: object) -> bytes:
    """Encode a value with its type. Every part tells its own length, so no two values have one encoding."""
    kind: type[object] = type(value)
    if kind is str:
        text = str.encode(value, errors="surrogatepass")  # type: ignore[arg-type]
        return b"s%d:%b" % (len(text), text)
    if value is None:
        return b"n"
    if kind in WORDS:
        text = WORDS[kind](value).encode()
        return b"w%b %d:%b" % (kind.__name__.encode(), len(text), text)
    if isinstance(value, type):
        return _part(b"c", _class_name(value))
    return _part(b"o", _class_name(kind), *_content(value))


def _content(value: object) -> list[bytes]:
    """Return the encoded parts of a value: an enum's name, a container's items, or an object's fields."""
    if isinstance(value, Enum):
        return [_encode(value.name or value.value)]
    if (fields := _fields(value)) is not None:
        return [_encode(part) for pair in fields for part in pair]
    parts = _parts_of_builtin(value)
    if parts is None or getattr(value, "__dict__", None):
        raise TypeError(f"{_class_name(type(value)).decode()} has no fields by which its values could be told apart")
    return parts


def _parts_of_builtin(value: object) -> list[bytes] | None:
    """Return the parts of a value of a built-in type, or of a subclass of one."""
    if isinstance(value, str):
        return [_encode(str.__str__(value))]
    if isinstance(value, bytes | bytearray | memoryview):
        return [bytes(value)]
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_encode(item) for item in value)
    if isinstance(value, dict | MappingProxyType):
        return sorted(_part(b"i", _encode(name), _encode(item)) for name, item in value.items())
    return next(([words(value).encode()] for kind, words in WORDS.items() if isinstance(value, kind)), None)


def _fields(value: object) -> list[tuple[str, object]] | None:
    """Return names and values of an object's fields; None if it has no declared ones, or others beside them."""
    kind: Any = type(value)
    names: Iterable[str]
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    elif isinstance(value, msgspec.Struct):
        names = value.__struct_fields__
    elif (model := getattr(kind, "__pydantic_fields__", None)) is not None:
        names = [*model, "__pydantic_extra__", "__pydantic_private__"]
    elif (attributes := getattr(kind, "__attrs_attrs__", None)) is not None:
        names = [attribute.name for attribute in attributes]
    else:
        return None
    others = getattr(value, "__dict__", {}).keys() - set(names)
    if any(not isinstance(getattr(kind, name, None), cached_property) for name in others):
        return None
    return [(name, getattr(value, name, None)) for name in names]


def _part(mark: bytes, *contents: bytes) -> bytes:
    return mark + b"%d(" % len(contents) + b"".join(b"%d:%b" % (len(content), content) for content in contents)


def _class_name(kind: type) -> bytes:
    if "<locals>" in kind.__qualname__:
        raise TypeError(f"the class {kind.__qualname__} is made inside a function, so another may have its name")
    return f"{kind.__module__}.{kind.__qualname__}".encode()


def is_interactive(function: Callable[..., Any]) -> bool:
    """Whether a function was typed in an interactive session, where it may be defined again."""
    return function.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__")


class KeyPart:
    """A part of the key that a caller names: an argument, or an attribute of one: "origin", "self.tenant"."""

    def __init__(self, text: str) -> None:
        self.root, *self._attributes = text.split(".")

    def read(self, arguments: Mapping[str, Any]) -> object:
        value: object = arguments[self.root]
        for name in self._attributes:
            value = getattr(value, name)
        return value
