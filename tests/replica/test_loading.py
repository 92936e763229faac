import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from escala.errors import AppLoadError
from escala.replica.loading import load_app, load_tasks
from tests.support import write


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_an_app(tmp_path: Path) -> None:
    write(tmp_path, shop__py="class made:\n    app = staticmethod(print)\nnothing = 5")
    assert load_app("shop:made.app") is print


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("absent:app", "there is no module 'absent'"),
        ("shop.absent:app", "there is no module 'shop.absent'"),
        ("shop:apq", "shop has no attribute 'apq'"),
        ("shop:app.inner", "shop.app has no attribute 'inner'"),
        ("shop:number", "shop.number is not an ASGI app but a int"),
        ("needs:app", "No module named 'not_installed' ("),
        ("broken:app", "ZeroDivisionError: division by zero ("),
        ("wrong:app", "SyntaxError"),
    ],
)
def test_what_fails_is_named(tmp_path: Path, target: str, reason: str) -> None:
    write(
        tmp_path,
        shop__py="number = 5\napp = print",
        needs__py="import not_installed",
        broken__py="x = 1\n1 / 0",
        wrong__py="def",
    )
    with pytest.raises(AppLoadError) as caught:
        load_app(target)
    assert reason in str(caught.value)
    if target.startswith("broken"):
        assert "broken.py:2" in str(caught.value)


def test_tasks(tmp_path: Path) -> None:
    write(tmp_path, jobs__py="from escala import task\n@task\ndef one(): ...\n@task(name='2')\ndef two(): ...")
    assert sorted(load_tasks("jobs")) == ["2", "jobs.one"]


def test_a_module_without_tasks(tmp_path: Path) -> None:
    write(
        tmp_path,
        none__py="x = 1",
        twice__py="from escala import task\n@task(name='a')\ndef x(): ...\n@task(name='a')\ndef y(): ...",
    )
    with pytest.raises(AppLoadError, match="has no tasks"):
        load_tasks("none")
    with pytest.raises(AppLoadError, match="two tasks are named 'a'"):
        load_tasks("twice")


WSGI = """
def plain(environ, start_response):
    start_response("200 OK", [])
    return [b"plain"]

class Whole:
    def __call__(self, environ, start_response):
        return plain(environ, start_response)

whole = Whole()

async def asgi(scope, receive, send): ...

class Bare:
    async def __call__(self, scope, receive, send): ...

bare = Bare()

def make():
    return asgi

def make_wsgi():
    return plain

def breaks():
    raise RuntimeError("no settings")

def odd(a, b=2): ...
"""


@pytest.mark.parametrize(
    ("name", "options", "wrapped"),
    [
        ("plain", {}, True),
        ("whole", {}, True),
        ("asgi", {}, False),
        ("bare", {}, False),
        ("make", {"factory": True}, False),
        ("make_wsgi", {"factory": True}, True),
        ("odd", {"interface": "wsgi"}, True),
        ("plain", {"interface": "asgi"}, False),
    ],
)
def test_how_an_app_is_called(tmp_path: Path, name: str, options: dict[str, Any], wrapped: bool) -> None:
    write(tmp_path, apps__py=WSGI)
    assert (type(load_app(f"apps:{name}", **options)).__name__ == "WsgiServer") is wrapped


def test_factories_that_fail_and_factories_that_nobody_called_one(tmp_path: Path) -> None:
    write(tmp_path, apps__py=WSGI)
    with pytest.raises(AppLoadError, match=r"RuntimeError: no settings \(.*apps.py"):
        load_app("apps:breaks", factory=True)
    with pytest.raises(AppLoadError, match="set factory = true"):
        load_app("apps:make")
