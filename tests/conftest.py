"""Fixtures of all tests: real engines, started once a session, and folders that PostgreSQL can reach."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import valkey as valkey_client

from escala.engines import postgres_engine, valkey_engine
from escala.layout import Layout
from tests.support import minimal_config, running_engine

# What a developer's shell sets for a project of theirs must not reach the tests.
for name in [name for name in os.environ if name.startswith("ESCALA_")]:
    del os.environ[name]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def session_folder() -> Iterator[Path]:
    """A folder for the session. Not pytest's own: that is 0700, and PostgreSQL's user could not pass through."""
    path = Path(tempfile.mkdtemp(prefix="escala-"))
    path.chmod(0o711)
    yield path
    if "KEEP" not in os.environ:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def make_folder(session_folder: Path) -> Callable[[], Path]:
    """Return a function that makes fresh folders, with paths short enough for sockets."""

    def make() -> Path:
        path = Path(tempfile.mkdtemp(dir=session_folder))
        path.chmod(0o711)
        return path

    return make


@pytest.fixture
def folder(make_folder: Callable[[], Path]) -> Path:
    return make_folder()


@pytest.fixture(scope="session")
def engines(session_folder: Path) -> Iterator[dict[str, str]]:
    """Run an embedded PostgreSQL and Valkey; return their URLs."""
    config = minimal_config()
    layout = Layout(session_folder / "engines")
    layout.create()
    with ExitStack() as stack:
        urls = {}
        for engine in (postgres_engine(config, layout), valkey_engine(config, layout)):
            stack.enter_context(running_engine(engine))
            urls[engine.name] = engine.url
        yield urls


@pytest.fixture
def postgres_url(engines: dict[str, str]) -> str:
    return engines["postgres"]


@pytest.fixture
def valkey_url(engines: dict[str, str]) -> str:
    """The URL of an empty Valkey."""
    with valkey_client.Valkey.from_url(engines["valkey"]) as client:
        client.flushall()
    return engines["valkey"]
