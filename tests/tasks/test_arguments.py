"""Arguments and results: kept as they are, or refused in words."""

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import msgspec
import pydantic
import pytest

from escala.errors import TaskArguments
from escala.tasks.arguments import Arguments, encode_result
from escala.tasks.context import JobContext

if TYPE_CHECKING:
    from nowhere import Nothing  # type: ignore[import-not-found]


class Color(Enum):
    RED = "red"


@dataclass
class Point:
    x: float
    y: float


class Item(pydantic.BaseModel):
    name: str
    price: Decimal


class Node(msgspec.Struct):
    name: str
    children: list["Node"] = []


def kept(hint: Any, value: Any) -> Any:
    def function(value: Any) -> None: ...

    function.__annotations__["value"] = hint
    arguments = Arguments(function, "t")
    return arguments.decode(arguments.encoded((value,), {})[0])["value"]


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (datetime, datetime(2026, 5, 1, 12, 30, tzinfo=UTC)),
        (datetime, datetime(2026, 5, 1, 12, 30, 1, 5, tzinfo=timezone(timedelta(hours=-3)))),
        (date, date(2026, 5, 1)),
        (timedelta, timedelta(days=1, microseconds=5)),
        (Decimal, Decimal("1.10")),
        (Decimal, Decimal(10) ** 40),
        (UUID, UUID(int=7)),
        (bytes, b"\0\xff"),
        (Color, Color.RED),
        (Point, Point(1.0, -0.0)),
        (Node, Node("a", [Node("b")])),
        (Item, Item(name="x", price=Decimal("1.10"))),
        (list[Item], [Item(name="x", price=Decimal(1))]),
        (tuple[int, str], (1, "a")),
        (set[int], {1, 2}),
        (dict[int, str], {1: "a"}),
        (float, -0.0),
        (float, 1e308),
        (int, 10**40),
        (str, "ñ \U0001f600 \\u0000 \n"),
        (str | None, None),
        (Any, {"b": [1, 2.5, None, True, "x"], "a": {}}),
        (str, "x" * 5_000_000),
    ],
)
def test_kept_as_they_are(hint: Any, value: Any) -> None:
    found = kept(hint, value)
    assert found == value
    assert type(found) is type(value)
    if isinstance(value, float):
        assert math.copysign(1, found) == math.copysign(1, value)
    if isinstance(value, dict):
        assert list(found) == list(value)


@pytest.mark.parametrize(
    ("hint", "value", "reason"),
    [
        (float, math.nan, "value: value is nan, and JSON has no such number"),
        (float, math.inf, "value: value is inf, and JSON has no such number"),
        (Any, {"x": [1, -math.inf]}, "value: value['x'][1] is -inf"),
        (Point, Point(1.0, math.nan), "value: value.y is nan"),
        (str, "a\0b", "NUL character"),
        (dict[str, str], {"a\0": "b"}, "NUL character"),
        (Any, ["a\0b"], "NUL character"),
        (str, "caf\udce9", "not valid Unicode"),
        (int, "1", "value: Expected `int`, got `str`"),
        (Annotated[int, msgspec.Meta(ge=1, le=12)], 13, "value: Expected `int` <= 12"),
        (Any, (1, 2), "value is a tuple, and would be a list; declare its exact type"),
        (Any, datetime(2026, 5, 1, tzinfo=UTC), "value is a datetime, and would be a str"),
        (Any, {"when": date(2026, 5, 1)}, "value['when'] is a date, and would be a str"),
        (Any, {1: 2}, "would be"),
        (Any, Color.RED, "would be a str"),
        (dict[str, Any], {"x": {1, 2}}, "value['x'] is a set, and would be a list"),
        (Any, object(), "a object has no place in JSON"),
        (Any, b"x", "value is a bytes, and would be a str"),
    ],
)
def test_refused_with_their_name(hint: Any, value: Any, reason: str) -> None:
    with pytest.raises(TaskArguments) as raised:
        kept(hint, value)
    assert "arguments of task 't': value: " in str(raised.value)
    assert reason in str(raised.value)


def configured(month: Annotated[int, msgspec.Meta(ge=1, le=12)], text: str = "x") -> None: ...


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "missing a required argument: 'month'"),
        ({"month": 1, "extra": 2}, "unexpected keyword argument 'extra'"),
        ({"month": None}, "month: Expected `int`, got `null`"),
        ({"self": 1, "month": 1}, "unexpected keyword argument 'self'"),
    ],
)
def test_calls_that_do_not_fit(given: dict[str, object], reason: str) -> None:
    with pytest.raises(TaskArguments) as raised:
        Arguments(configured, "t").encoded((), given)
    assert reason in str(raised.value)


def test_defaults_travel_too() -> None:
    assert Arguments(configured, "t").encoded((3,), {})[0] == '{"month":3,"text":"x"}'


def test_versions_of_a_function() -> None:
    """A worker takes its default for an argument that the caller's version did not have, and refuses one it lacks."""
    arguments = Arguments(configured, "t")
    assert arguments.decode('{"month":3}') == {"month": 3}
    for text, reason in (
        ('{"text":"x"}', "missing required field `month`"),
        ('{"month":1,"new":2}', "unknown field `new`"),
        ('{"month":"1"}', "month: Expected `int`, got `str`"),
    ):
        with pytest.raises(TaskArguments, match=reason):
            arguments.decode(text)


def test_annotations_that_cannot_be_resolved() -> None:
    def function(value: "Nothing") -> None: ...

    with pytest.raises(TypeError, match="task 't': an annotation cannot be resolved"):
        Arguments(function, "t").prepare()


class Thing:
    """It has no declared fields."""


@pytest.mark.parametrize("hint", [list[int] | set[int], Thing, dict[str, Thing]])
def test_types_that_json_cannot_hold(hint: Any) -> None:
    def function(value: Any) -> None: ...

    function.__annotations__["value"] = hint
    with pytest.raises(TypeError, match="task 't': argument value"):
        Arguments(function, "t").prepare()


def test_the_context_is_no_argument() -> None:
    def by_type(job: JobContext, month: int) -> None: ...

    def by_name(month: int, job) -> None: ...  # type: ignore[no-untyped-def]

    def of_another_type(job: str) -> None: ...

    assert Arguments(by_type, "t").encoded((3,), {})[0] == '{"month":3}'
    assert Arguments(by_name, "t").encoded((3,), {})[0] == '{"month":3}'
    assert Arguments(of_another_type, "t").encoded(("cook",), {})[0] == '{"job":"cook"}'
    assert not Arguments(of_another_type, "t").wants_job


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ({"b": 1, "a": (1, 2)}, '{"b":1,"a":[1,2]}'),
        ("a\0b", '"a\\u0000b"'),
        (Item(name="x", price=Decimal("1.10")), '{"name":"x","price":"1.10"}'),
        (-0.0, "-0.0"),
        (10**40, str(10**40)),
    ],
)
def test_results(value: object, text: str) -> None:
    assert encode_result(value) == text


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"x": math.nan}, r"value\['x'\] is nan"),
        ([Point(math.inf, 0)], r"value\[0\]\.x is inf"),
        (object(), "a object has no place in JSON"),
        ("caf\udce9", "not valid Unicode"),
    ],
)
def test_results_that_cannot_be_kept(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        encode_result(value)
