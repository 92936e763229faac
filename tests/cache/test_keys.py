"""Keys name the function without doubt and tell arguments apart by type and value; tags have the arguments' text."""

import importlib.util
import itertools
import subprocess
import sys
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from starlette.datastructures import QueryParams

from escala.cache import Cache
from escala.cache.keys import digest as seeded_digest
from escala.cache.keys import seed
from escala.values.template import Template, tag_text


def digest(values: list[Any]) -> str:
    return seeded_digest(seed("f"), values)


class Origin(str, Enum):  # noqa: UP042 - as people write it
    JFK = "JFK"


class Airport(Enum):
    JFK = "JFK"


class Level(IntEnum):
    ONE = 1


@dataclass
class Square:
    size: int


@dataclass
class Circle:
    size: int


class Point(NamedTuple):
    x: int
    y: int


class Struct(msgspec.Struct):
    x: int


class Model(BaseModel):
    x: int
    y: list[int] = []


class Text(str):
    pass


DAY = date(2013, 1, 1)
MOMENT = datetime(2013, 1, 1, 12, tzinfo=UTC)

DIFFERENT: list[Any] = [
    None, "", "None", True, False, "True", 0, 1, -1, 0.0, -0.0, 1.0, "1", "1.0", b"1", bytearray(b"1"), Decimal(1),
    Decimal("1.0"), 1 + 0j, 10**40, "é", "e\u0301", "\ud800", float("inf"), float("nan"), "nan",
    [], (), {}, set(), frozenset(), [1], (1,), [True], (1.0,), {1}, frozenset({1}), [[1], 2], [[1, 2]], [1, [2]],
    {"a": 1}, {"a": True}, {1: "a"}, {"1": "a"}, [("a", 1)], OrderedDict(a=1),
    DAY, DAY.isoformat(), datetime(2013, 1, 1), MOMENT, MOMENT.astimezone(ZoneInfo("Europe/Madrid")),
    datetime(2013, 1, 1, 12, tzinfo=ZoneInfo("UTC")), time(1), timedelta(1), timedelta(hours=24, microseconds=1),
    uuid.UUID(int=1), str(uuid.UUID(int=1)), Path("a"), "a", Text("a"),
    Origin.JFK, Airport.JFK, "JFK", Level.ONE, Square(2), Circle(2), 2, Point(1, 2), (1, 2), [1, 2], Struct(1),
    Model(x=1), Model(x=1, y=[1]), Square, Circle, int, range(2),
]  # fmt: skip


def test_different_values_have_different_keys() -> None:
    digests: dict[str, Any] = {}
    for value in DIFFERENT:
        key = digest([value])
        assert key not in digests, (value, digests.get(key))
        digests[key] = value
    nested = {digest([[value]]) for value in DIFFERENT}
    assert len(nested) == len(DIFFERENT)


def test_equal_values_have_one_key() -> None:
    assert digest([{"a": 1, "b": 2}]) == digest([{"b": 2, "a": 1}])
    assert digest([{3, 1, 2}]) == digest([{1, 2, 3}])
    assert digest([Model(x=1)]) == digest([Model(x=1, y=[])])
    assert digest([Square(2), "a"]) != digest(["a", Square(2)])


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(values, values)
def test_keys_are_equal_only_for_equal_values(one: Any, other: Any) -> None:
    def spelled(value: Any) -> str:
        if isinstance(value, dict):
            return f"{{{sorted((repr(name), spelled(item)) for name, item in value.items())}}}"
        if isinstance(value, list | tuple):
            return f"{type(value).__name__}{[spelled(item) for item in value]}"
        return repr(value)

    assert (digest([one]) == digest([other])) == (spelled(one) == spelled(other))


def test_only_what_tells_values_apart_is_taken() -> None:
    class Undeclared(Square):
        pass

    @dataclass
    class Lazy(Square):
        @cached_property
        def area(self) -> int:
            return self.size**2

    globals().update(Undeclared=Undeclared, Lazy=Lazy)
    for kind in (Undeclared, Lazy):
        kind.__qualname__ = kind.__name__
    other = Undeclared(1)
    other.extra = 2  # type: ignore[attr-defined]
    tagged = Text("a")
    tagged.extra = 2  # type: ignore[attr-defined]
    for value in (other, tagged, QueryParams("a=1&a=2")):
        with pytest.raises(TypeError, match="has no fields"):
            digest([value])
    lazy = Lazy(2)
    before = digest([lazy])
    assert lazy.area == 4
    assert digest([lazy]) == before
    zones = [timezone(timedelta(hours=hours), "X") for hours in (1, 5)]
    assert digest([zones[0]]) != digest([zones[1]])
    assert digest([10**5000]) != digest([10**5000 + 1])
    assert digest([Odd(1)]) != digest([Odd(2)])


class Odd(int):
    def __str__(self) -> str:
        return "odd"


def test_keys_are_the_same_in_every_process() -> None:
    code = "from escala.cache.keys import *; print(digest(seed('f'), [{'a', 'b', 'c'}, {'x': 1.5}, 'é', None]))"
    printed = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert printed == {digest([{"a", "b", "c"}, {"x": 1.5}, "é", None]) + "\n"}


def test_what_has_no_fields_is_refused() -> None:
    class Local(Enum):
        A = 1

    with pytest.raises(TypeError, match="object has no fields"):
        digest([object()])
    with pytest.raises(TypeError, match="made inside a function"):
        digest([Local.A])


# ------------------------------------------------------------------------------------------------ names of functions

names = Cache("names")


def test_functions_of_one_factory_need_names() -> None:
    def make(name: str | None) -> Any:
        @names.cached(name=name)
        async def load(number: int) -> str:
            return f"{name}{number}"

        return load

    with pytest.raises(TypeError, match="give it one of its own"):
        make(None)
    users, orders = make("users"), make("orders")
    assert users.key(1) != orders.key(1)
    with pytest.raises(TypeError, match="has a function users already"):
        make("users")


MODULE = """
from escala import Cache

c = Cache("{name}")
{body}
"""


_modules = itertools.count()


def loaded(body: str, folder: Path) -> str:
    """Return what a module with `body` says when it is imported; nothing if it says nothing."""
    name = f"imported{next(_modules)}"
    path = folder / f"{name}.py"
    path.write_text(MODULE.format(name=name, body=body))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where annotations are looked up
    try:
        spec.loader.exec_module(module)
    except (TypeError, ValueError) as error:
        return str(error)
    finally:
        del sys.modules[name]
    return ""


def test_functions_of_a_loop_are_refused_at_import(folder: Path) -> None:
    body = "for t in 'ab':\n    @c.cached()\n    async def load(i: int) -> str:\n        return t"
    assert ".load already" in loaded(body, folder)


def test_two_caches_of_one_name_share_the_names_of_functions(folder: Path) -> None:
    body = "c.cached(name='dup')(f)\nCache(c.name).cached(name='dup')(g)"
    functions = "async def f() -> int: ...\nasync def g() -> int: ...\n"
    assert "has a function dup already" in loaded(functions + body, folder)


def test_a_module_can_be_loaded_again(folder: Path) -> None:
    body = "@c.cached()\nasync def load(i: int) -> str:\n    return ''"
    (folder / "again.py").write_text(MODULE.format(name="again", body=body))
    code = "import again, importlib; importlib.reload(again)"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)


def test_two_scripts_have_different_names(folder: Path) -> None:
    keys = set()
    for name in ("one.py", "two.py"):
        (folder / name).write_text(
            MODULE.format(
                name="c", body="@c.cached()\nasync def load(i: int) -> str:\n    return ''\nprint(load.key(1))"
            )
        )
        run = subprocess.run([sys.executable, name], cwd=folder, capture_output=True, text=True, check=True)
        keys.add(run.stdout)
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("@c.cached()\nasync def f():\n    return 1", "does not say what it returns"),
        ("@c.cached()\nasync def f() -> 'Missing':\n    return 1", "cannot be read when it is decorated"),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from datetime import date\n"
            "@c.cached()\nasync def f() -> 'date': ...",
            "outside of TYPE_CHECKING",
        ),
        ("@c.cached()\nasync def f() -> object: ...", "object cannot be kept"),
        ("class A: ...\n@c.cached()\nasync def f() -> list[A]: ...", "A cannot be kept"),
        ("from typing import Iterator\n@c.cached()\nasync def f() -> Iterator[int]: ...", "Iterator cannot be kept"),
        ("@c.cached()\nasync def f() -> int:\n    yield 1", "yields its values"),
        ("@c.cached(tags=['x:{b}'])\nasync def f(a: int) -> int: ...", "refer to b, which is not a parameter"),
        ("@c.cached(tags=['x:{}'])\nasync def f(a: int) -> int: ...", "placeholder without the name"),
        ("@c.cached(tags=['x:{a:d}'])\nasync def f(a: int) -> int: ...", "formats a value"),
        ("@c.cached(key=['b'])\nasync def f(a: int) -> int: ...", "refer to b, which is not a parameter"),
        ("class A:\n    @c.cached()\n    async def f(self) -> int: ...", "is a method: say which fields"),
        ("@c.cached(key=['a'], tags=['b:{b}'])\nasync def f(a: int, b: int) -> int: ...", "not in its key"),
        ("c.cached()(lambda: 1)", "give it one of its own"),
        ("c.cached(ttl='60')", "expected a number with a unit"),
        ("c.cached(ttl='2d')", "longer than a day"),
        ("c.cached(tll='2d')", "unknown option 'tll'"),
        ("c.cached(early=2)", "early=2: expected a part"),
        ("c.cached(jitter=True)", "jitter=True: expected a part"),
        ("c.cached(levels='l3')", "expected one of both, l1, l2"),
        ("c.cached(copy='no')", "expected True or False"),
        ("c.cached(errors=(1,))", "expected a tuple of exception classes"),
        ("c.cached(name='a b')(print)", "must not contain blanks"),
        ("Cache('a:b')", "a cache's name is"),
    ],
)
def test_what_is_known_at_import_is_said_at_import(folder: Path, body: str, says: str) -> None:
    assert says in loaded(body, folder)


# -------------------------------------------------------------------------------------------------------------- tags


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("JFK", "JFK"), (Origin.JFK, "JFK"), (Airport.JFK, "JFK"), (Level.ONE, "1"), (1, "1"), (Text("a"), "a"),
        (DAY, "2013-01-01"), (MOMENT, "2013-01-01T12:00:00+00:00"), (None, "None"), (Decimal("1.0"), "1.0"),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
    ],
)  # fmt: skip
def test_texts_of_values(value: object, text: str) -> None:
    assert tag_text(value) == text


def test_templates() -> None:
    assert Template("order:{order.size}:{rows[1]}").fill({"order": Square(3), "rows": [1, 2]}) == "order:3:2"
    with pytest.raises(TypeError, match="a tag cannot hold a Square"):
        Template("{order}").fill({"order": Square(3)})
