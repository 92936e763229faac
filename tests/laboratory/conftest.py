from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from escala.config import FILE
from escala.processes.ports import free_port
from tests.support import LABORATORY, Up, client, token_for


def laboratory_options(state: Path) -> list[str]:
    """Return the options that run the laboratory on free ports, with its state in `state`."""
    settings = {
        "project.state": state / "s",
        "gateway.bind": f"127.0.0.1:{free_port()}",
        "services.microservice.ports": [free_port(), free_port()],
        "services.database.ports": [free_port()],
        "services.analytics.ports": [free_port()],
        "services.worker.ports": [free_port()],
    }
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="session")
def laboratory(make_folder: Callable[[], Path]) -> Iterator[Up]:
    """The whole laboratory on its real data."""
    folder = make_folder()
    up = Up(LABORATORY / FILE, *laboratory_options(folder), output=folder / "up.txt")
    with up:
        yield up.wait_open()


@pytest.fixture(scope="session")
def tokens(laboratory: Up) -> Callable[..., str]:
    def make(*options: str) -> str:
        return token_for(laboratory.project, *options)

    return make


@pytest.fixture
def http(laboratory: Up, tokens: Callable[..., str]) -> Iterator[httpx.Client]:
    """A client with a token that may do everything."""
    with client(laboratory.url, tokens()) as made:
        yield made
