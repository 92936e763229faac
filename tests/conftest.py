"""Fixtures of all tests: real engines, started once a session, and folders that PostgreSQL can reach."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import valkey as valkey_client

from escala.engines import postgres_engine, valkey_engine
from escala.project.layout import Layout
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
def seed(make_folder: Callable[[], Path]) -> Callable[[Path], Path]:
    """Return a function that gives a project's folder the PostgreSQL data that its first start would make.

    Making it is half of such a start. Those of test_up.py, of the laboratory and of the engine itself do without.
    """
    config, made = minimal_config(), Layout(make_folder())
    made.create()
    postgres_engine(config, made).prepare()

    def give(folder: Path) -> Path:
        layout = Layout.of(config.project.state, config.project.name, folder)
        layout.create()
        subprocess.run(["cp", "-a", made.postgres, layout.postgres], check=True)
        return folder

    return give


@pytest.fixture
def home(folder: Path, seed: Callable[[Path], Path]) -> Path:
    """A folder for a project that needs no first start."""
    return seed(folder)


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
