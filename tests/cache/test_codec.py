"""Values come back as they were, or are refused."""

import dataclasses
import math
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar
from zoneinfo import ZoneInfo

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel

from escala.cache.codec import Codec


class Color(Enum):
    RED = "red"


class Sort(StrEnum):
    UP = "up"


@dataclass
class Flight:
    number: int
    day: date


@dataclass
class Charter(Flight):
    owner: str


@dataclass(frozen=True)
class Frozen:
    number: int


@dataclass(frozen=True)
class FrozenOutside:
    rows: list[int]


class Struct(msgspec.Struct, frozen=True):
    x: int


class Row(TypedDict):
    x: int


class Point(NamedTuple):
    x: int


class Item(BaseModel):
    model_config = ConfigDict(strict=True)
    price: Decimal = Field(alias="priceOfItem")
    day: date
    parts: list["Item"] = []


T = TypeVar("T")


@dataclass(frozen=True)
class Box(Generic[T]):
    inner: T


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    x: int
    _secret: int = 0


def loose(secret: int) -> Loose:
    made = Loose(x=1)
    made._secret = secret
    return made


class Dog(BaseModel):
    name: str
    barks: bool = True


class Pets(RootModel[Annotated[Dog | None, Field()]]):
    pass


ITEM = Item(priceOfItem=Decimal("1.10"), day=date(2013, 1, 1))
MOMENT = datetime(2013, 1, 1, 12, tzinfo=UTC)
RICH = {
    "day": date(2013, 1, 1), "at": MOMENT, "naive": datetime(2013, 1, 1), "time": time(1), "for": timedelta(1, 2, 3),
    "price": Decimal("1.10"), "id": uuid.UUID(int=5), "pair": (1, (2, {3})), "frozen": frozenset({1}), "raw": b"\0",
    "large": -(10**40), "none": None, "nan": math.inf, "rows": [{"day": date(2013, 1, 1)}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 1), (str, "é"), (None, None), (int | None, None), (float, 1), (bytes, b"\xff"),
        (Decimal, Decimal("1.10")), (list[Flight] | None, [Flight(1, date(2013, 1, 1))]),
        (list[int], [1]), (tuple[int, ...], (1, 2)), (set[str], {"a"}), (dict[int, str], {1: "a"}), (Color, Color.RED),
        (Literal["a", 1], 1), (Flight, Flight(1, date(2013, 1, 1))), (Struct, Struct(1)),
        (Row, {"x": 1}), (Point, Point(1)), (Item, ITEM), (list[Item], [ITEM, ITEM]),
        (dict[str, Item], {"a": ITEM}), (Item | None, None), (Pets, Pets(Dog(name="Rex"))),
        (Box[int], Box(1)), (Box[Box[list[int]]], Box(Box([1]))), (Loose, Loose(x=1)),
        (Loose, Loose.model_validate({"x": 1, "y": "z"})),
        (Any, RICH), (dict, RICH), (dict[str, Any], RICH), (list, [RICH]), (list[dict[str, Any]], [RICH]),
        (dict[str, Any] | None, RICH), (dict[str, list[Any]], {"a": [date(2013, 1, 1), (1,)]}),
    ],
)  # fmt: skip
def test_a_value_comes_back_as_it_was(annotation: Any, value: Any) -> None:
    codec = Codec(annotation)
    payload, kept = codec.encode(value)
    assert kept == value
    assert type(kept) is (float if annotation is float else type(value))
    assert codec.decode(payload) == value
    if isinstance(value, dict):
        assert isinstance(kept, dict)
        assert {name: type(item) for name, item in kept.items()} == {name: type(item) for name, item in value.items()}


def test_a_moment_keeps_its_zone() -> None:
    moment = datetime(2013, 3, 30, 12, tzinfo=ZoneInfo("Europe/Madrid"))
    _, kept = Codec(Any).encode({"at": moment})
    assert kept["at"] + timedelta(days=1) == moment + timedelta(days=1)
    assert kept["at"].tzinfo == moment.tzinfo


def test_nan_is_kept() -> None:
    _, kept = Codec(list[float]).encode([math.nan, 1.0])
    assert math.isnan(kept[0])
    assert Codec(list[Decimal]).encode([Decimal("NaN")])[1][0].is_nan()


@pytest.mark.parametrize(
    ("annotation", "value", "says"),
    [
        (int, "1", "Expected `int`"),
        (list[int], [1, None], "Expected `int`"),
        (Flight, Charter(1, date(2013, 1, 1), "x"), "is a Charter, and would be a Flight"),
        (dict[str, Any], {"a": Frozen(1)}, "Frozen is not a declared type"),
        (Any, object(), "object is not a declared type"),
        (Dog, Item(priceOfItem=Decimal(1), day=date(2013, 1, 1)), "Item is not a declared type"),
        (int, 2**70, "can't serialize ints"),
        (Loose, Loose.model_validate({"x": 1, "y": Decimal("1.5")}), "is a Decimal, and would be a str"),
        (Loose, loose(7), "is a int, and would be a int"),
        (Any, {(1, 2): 3}, "has the key"),
        (Any, Sort.UP, "Sort is not a declared type"),
        (Any, bytearray(b"1"), "bytearray is not a declared type"),
        (Decimal, Decimal("sNaN"), "cannot be kept"),
    ],
)
def test_what_would_come_back_as_something_else_is_refused(annotation: Any, value: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        Codec(annotation).encode(value)


@pytest.mark.parametrize("annotation", [object, complex, list[range], Dog | Item, "int"])
def test_types_that_cannot_be_kept(annotation: Any) -> None:
    with pytest.raises(TypeError, match="cannot be kept"):
        Codec(annotation)


@pytest.mark.parametrize(
    ("annotation", "immutable"),
    [
        (int, True), (str | None, True), (tuple[int, ...], True), (frozenset[str], True), (Frozen, True),
        (Struct, True), (Color, True), (Point, True), (list[int], False), (Flight, False),
        (Box[int], True), (Box[Box[list[int]]], False),
        (tuple[list[int], ...], False), (FrozenOutside, False), (Any, False), (Dog, False), (dict[str, int], False),
    ],
)  # fmt: skip
def test_what_callers_may_share(annotation: Any, immutable: bool) -> None:
    assert Codec(annotation).immutable is immutable


def test_fingerprints_tell_versions_of_a_type_apart() -> None:
    def made(*fields: Any) -> type:
        return dataclasses.make_dataclass("Made", fields)

    versions: list[Any] = [
        made(("a", int)), made(("b", int)), made(("a", str)), made(("a", int), ("b", int, 0)), int, str, list[int],
        list[str], dict[str, int], dict[str, str], int | None, tuple[int, int], tuple[int, ...], Dog, Item, Pets, Color,
        Literal["a"], Literal["b"], Any, float, Decimal, date, datetime,
    ]  # fmt: skip
    fingerprints = [Codec(version).fingerprint for version in versions]
    assert len(set(fingerprints)) == len(versions)
    assert Codec(made(("a", int))).fingerprint == fingerprints[0]
