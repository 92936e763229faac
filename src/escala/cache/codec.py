"""Values as bytes: MessagePack through msgspec, by the declared type. Never pickle.

A codec is made where a function is declared, so a type that cannot be kept is refused at import.
"""

import hashlib
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, get_origin
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from msgspec import inspect as types

from escala.values.comparison import difference, equal
from escala.values.models import is_model, load_model_json
from escala.values.types import CLASSES, parts_of, require_declared, walk

FORMAT = "1"
"""The version of this encoding, and of the entries in Valkey. Another version's entries are misses."""

_SCALARS = (
    types.NoneType, types.BoolType, types.IntType, types.FloatType, types.StrType, types.BytesType,
    types.DateTimeType, types.TimeType, types.DateType, types.TimeDeltaType, types.UUIDType, types.DecimalType,
    types.LiteralType, types.EnumType,
)  # fmt: skip


class Codec:
    """Encodes and decodes the values of one type.

    `annotation` is the declared type: what msgspec supports, and pydantic models (alone, in containers, or with None).
    Dates, decimals, UUIDs, tuples and sets come back as they were, also where the type says no more than ``dict`` or
    ``Any``. Raises TypeError if values of the type cannot be encoded.
    """

    def __init__(self, annotation: Any) -> None:
        try:
            info = types.type_info(annotation)
            self._decoder = msgspec.msgpack.Decoder(annotation, dec_hook=load_model_json, ext_hook=load_extension)
        except (TypeError, ValueError) as error:
            raise TypeError(f"values of the type {annotation} cannot be kept: {error}") from None
        require_declared(info)
        self.annotation = annotation
        self.immutable = _is_immutable(info)
        self.fingerprint = hashlib.blake2b("\n".join(_describe(info, set())).encode(), digest_size=8).hexdigest()
        """Tells types apart: the entries of a process that declares another type are not read."""
        self.decode: Callable[[bytes], Any] = self._decoder.decode
        self._models = {part.cls for part in walk(info) if isinstance(part, types.CustomType)}
        self._encoder = msgspec.msgpack.Encoder(enc_hook=self._dump)
        self._prepare = _preparation(info)

    def encode(self, value: Any) -> tuple[bytes, Any]:
        """Return a value's bytes, and the value that they decode to.

        Raises TypeError if the value is not of the declared type, or would be decoded to another value.
        """
        try:
            payload = self._encoder.encode(self._prepare(value) if self._prepare else value)
            kept = self.decode(payload)
            same = equal(value, kept)
        except (TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            raise TypeError(f"a value that is declared as {self.annotation} cannot be kept: {error}") from error
        if not same:
            raise TypeError(
                f"a value that is declared as {self.annotation} cannot be kept: it would come back as another value "
                f"({difference(value, kept)}); declare its exact type"
            )
        return payload, kept

    def _dump(self, value: Any) -> bytes:
        if type(value) in self._models:
            return bytes(type(value).__pydantic_serializer__.to_json(value, round_trip=True, by_alias=False))
        raise TypeError(f"{type(value).__qualname__} is not a declared type")


_EXTENSIONS: dict[type, tuple[int, Callable[[Any], Any], Callable[[Any], Any]]] = {
    tuple: (1, lambda value: [_enrich(item) for item in value], tuple),
    set: (2, lambda value: [_enrich(item) for item in value], set),
    frozenset: (3, lambda value: [_enrich(item) for item in value], frozenset),
    date: (4, date.isoformat, date.fromisoformat),
    datetime: (5, lambda value: _moment(value), lambda parts: _moment_of(*parts)),
    time: (6, time.isoformat, time.fromisoformat),
    timedelta: (7, lambda value: [value.days, value.seconds, value.microseconds], lambda parts: timedelta(*parts)),
    Decimal: (8, str, Decimal),
    UUID: (9, lambda value: value.bytes, lambda data: UUID(bytes=data)),
    int: (10, lambda value: format(value, "x"), lambda text: int(text, 16)),
}
"""What MessagePack has no type for: a code, what is written, and what makes the value of it again."""


def _moment(value: datetime) -> list[Any]:
    """Return a moment with the name of its zone, if it has one: an offset alone does not know summer time."""
    zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
    return [(value.replace(tzinfo=None) if zone else value).isoformat(), value.fold, zone]


def _moment_of(text: str, fold: int, zone: str | None) -> datetime:
    value = datetime.fromisoformat(text).replace(fold=fold)
    return value.replace(tzinfo=ZoneInfo(zone)) if zone else value


_READERS = {code: read for code, _, read in _EXTENSIONS.values()}
_plain = msgspec.msgpack.Encoder()


_NATIVE = (str, int, float, bool, bytes, type(None))


def _enrich(value: Any) -> Any:
    """Return a value of no declared type with extensions for what would lose its type."""
    kind = type(value)
    if kind is dict:
        if odd := next((name for name in value if type(name) not in _NATIVE), None):
            raise TypeError(f"a dict of no declared type has the key {odd!r}, a {type(odd).__qualname__}")
        return {name: _enrich(item) for name, item in value.items()}
    if kind is list:
        return [_enrich(item) for item in value]
    if kind in _EXTENSIONS and (kind is not int or not -(2**63) <= value < 2**64):
        code, write, _ = _EXTENSIONS[kind]
        return msgspec.msgpack.Ext(code, _plain.encode(write(value)))
    if kind not in _NATIVE:
        raise TypeError(f"{kind.__qualname__} is not a declared type")
    return value


def load_extension(code: int, data: memoryview) -> Any:
    """Return what an extension of MessagePack stands for (msgspec's `ext_hook`)."""
    return _READERS[code](msgspec.msgpack.decode(data, ext_hook=load_extension))


def _preparation(info: types.Type) -> Callable[[Any], Any] | None:
    """Return the function that enriches the parts of a value whose type is not declared; None if there are none."""
    if isinstance(info, types.AnyType):
        return _enrich
    if isinstance(info, types.DictType) and (inner := _preparation(info.value_type)):
        return partial(_in_values, inner)
    if isinstance(info, types.ListType) and (inner := _preparation(info.item_type)):
        return partial(_in_items, inner)
    if isinstance(info, types.UnionType) and len(info.types) == 2 and types.NoneType() in info.types:
        other = next(part for part in info.types if not isinstance(part, types.NoneType))
        if inner := _preparation(other):
            return partial(_unless_none, inner)
    return None


def _in_values(prepare: Callable[[Any], Any], value: dict[Any, Any]) -> dict[Any, Any]:
    return {name: prepare(item) for name, item in value.items()}


def _in_items(prepare: Callable[[Any], Any], value: list[Any]) -> list[Any]:
    return [prepare(item) for item in value]


def _unless_none(prepare: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else prepare(value)


def _describe(info: types.Type, seen: set[Any]) -> list[str]:
    """Return the words that tell a type from every other: its kind, its class and its fields."""
    words = [type(info).__name__]
    kind = getattr(info, "cls", None)
    if kind is not None:
        words.append(f"{kind.__module__}.{kind.__qualname__} {getattr(kind, '__args__', ())}")
        if kind in seen:
            return words
        seen.add(kind)
    if isinstance(info, types.EnumType):
        words += [f"{member.name}={member.value!r}" for member in info.cls]
    elif isinstance(info, types.LiteralType):
        words += map(repr, info.values)
    elif isinstance(info, types.CustomType):
        model: Any = info.cls
        words += [f"{name}: {field.annotation!r}" for name, field in model.__pydantic_fields__.items()]
        words += [word for inner in _inner_models(model) for word in _describe(types.CustomType(inner), seen)]
    elif isinstance(info, CLASSES):
        words += [f"{field.encode_name} {field.required}" for field in info.fields]
        words += [f"{getattr(info, name, None)!r}" for name in ("tag", "tag_field", "array_like")]
    return [*words, "(", *(word for part in parts_of(info) for word in _describe(part, seen)), ")"]


def _inner_models(model: Any) -> list[Any]:
    """Return the pydantic models that a model's fields are declared with."""
    found = []
    waiting = [field.annotation for field in model.__pydantic_fields__.values()]
    while waiting:
        annotation = waiting.pop()
        waiting += getattr(annotation, "__args__", ())
        if isinstance(annotation, type) and is_model(annotation):
            found.append(annotation)
    return found


def _is_immutable(info: types.Type, seen: frozenset[Any] = frozenset()) -> bool:
    if isinstance(info, _SCALARS):
        return True
    kind = getattr(info, "cls", None)
    if kind in seen:
        return True
    frozen = isinstance(info, types.FrozenSetType | types.TupleType | types.VarTupleType | types.UnionType)
    origin: Any = get_origin(kind) or kind  # of a generic class with its parameters
    if isinstance(info, types.StructType):
        frozen = origin.__struct_config__.frozen
    elif isinstance(info, types.DataclassType):
        frozen = origin.__dataclass_params__.frozen
    elif isinstance(info, types.NamedTupleType):
        frozen = True
    return frozen and all(_is_immutable(part, seen | {kind} if kind else seen) for part in parts_of(info))
