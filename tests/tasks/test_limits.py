from typing import Any

import pytest

from escala import task
from escala.errors import TaskArguments
from escala.tasks.limits import Limits


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"concurrency": 0}, "1 or more"),
        ({"concurrency_key": "{a}"}, "needs concurrency"),
        ({"unique_for": "1h"}, "needs unique"),
        ({"rate": "10"}, "10/1m"),
        ({"rate": "0/1m"}, "10/1m"),
        ({"rate": "1/soon"}, "expected"),
        ({"unique": "{b}"}, "no argument 'b'"),
        ({"unique": "{a!r}"}, "formats a value"),
        ({"concurrency": 1, "concurrency_key": "{b.c}"}, "no argument 'b'"),
    ],
)
def test_limits_that_are_not_possible(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):

        @task(name="x", **options)
        def function(a: int) -> None: ...


def test_keys() -> None:
    limits = Limits("t", concurrency=1, concurrency_key="{a}/{b.real}", unique=True)
    assert limits.key({"a": "x", "b": 3}) == "t:x/3"
    assert Limits("t", concurrency=1).key({}) == "t"
    assert Limits("t").key({}) is None
    assert limits.unique_key({}, "{}") != limits.unique_key({}, '{"a":1}')
    with pytest.raises(TaskArguments, match="a key cannot be made"):
        limits.key({"a": [], "b": 3})
