"""`escala top`: what it computes, and what it shows on a real terminal."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from escala.cli.support.quantiles import quantile, since
from escala.processes.ports import free_port
from tests.load import token_of
from tests.support import REPOSITORY, Up, escala, wait_until

INF = float("inf")


def test_quantiles() -> None:
    histogram = {0.01: 50, 0.1: 90, 1.0: 100, INF: 100}
    assert quantile(histogram, 0.5) == pytest.approx(0.01)
    assert quantile(histogram, 0.7) == pytest.approx(0.055)
    assert quantile(histogram, 0.99) == pytest.approx(0.91)
    assert quantile({0.01: 0, INF: 5}, 0.5) == 0.01  # beyond the last bound nothing is known
    assert quantile({}, 0.5) is None
    assert quantile({0.01: 0, INF: 0}, 0.5) is None


def test_what_came_between_two_looks() -> None:
    assert since({0.1: 3, INF: 4}, {0.1: 5, INF: 9}) == {0.1: 2, INF: 5}
    assert since({0.1: 3, INF: 4}, {0.1: 1, INF: 1}) == {0.1: 1, INF: 1}
    assert since({}, {0.1: 1, INF: 1}) == {0.1: 1, INF: 1}


PROJECT = """
[project]
name = "top"

[gateway]
bind = "127.0.0.1:{port}"

[services.web]
command = "{python} -m tests.gateway.small $PORT"
replicas = {{ min = 1, max = 4 }}
routes = ["/echo"]
rollout = {{ settle = "100ms" }}
"""


@pytest.fixture
def up(home: Path) -> Iterator[Up]:
    (home / "escala.toml").write_text(PROJECT.format(port=free_port(), python=sys.executable))
    with Up(home / "escala.toml", environ={"PYTHONPATH": str(REPOSITORY)}) as running:
        yield running.wait_open()


class Terminal:
    """A program at a terminal of 100 by 40."""

    def __init__(self, *words: str) -> None:
        self.shown = ""
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "escala", *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "COLUMNS": "100", "LINES": "40", "TERM": "xterm"},
        )
        os.close(theirs)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def wait(self, shows: Callable[[str], bool], what: str) -> None:
        end = time.monotonic() + 30
        while not shows(self.shown):
            assert time.monotonic() < end, f"{what}: {self.shown[-3000:]}"
            if select.select([self._ours], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self._ours, 65536).decode(errors="replace")
                except OSError:  # it has ended
                    break

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


def test_on_a_terminal(up: Up) -> None:
    terminal = Terminal("top", "--file", str(up.file))
    try:
        terminal.wait(lambda shown: "web/1" in shown and "serving" in shown, "the replica is shown")
        headers = {"Authorization": f"Bearer {token_of(up)}"}
        for _ in range(30):
            assert httpx.get(f"{up.url}/echo", headers=headers).status_code == 200
        terminal.wait(lambda shown: " ms" in shown, "times are shown")
        terminal.press("+")
        wait_until(lambda: len(up.replicas("web")) == 2, "it is scaled")
        terminal.wait(lambda shown: "1 → 2 replicas" in shown, "it says so")
        terminal.press("\x1b[B")
        terminal.press("d")
        wait_until(lambda: up.replicas("web")[0]["drained"], "it is drained")
        terminal.press("d")
        wait_until(lambda: not up.replicas("web")[0]["drained"], "it is back")
        first = up.replicas("web")[0]["pid"]
        terminal.press("r")
        wait_until(lambda: first not in [process["pid"] for process in up.replicas("web")], "it is being restarted")
        terminal.press("q")
        terminal.wait(lambda shown: terminal.process.poll() is not None, "it ends")
        assert terminal.process.wait(10) == 0
    finally:
        terminal.close()


def test_without_a_terminal(up: Up) -> None:
    done = escala("top", "--file", str(up.file))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "needs a terminal" in done.stderr
