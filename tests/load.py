"""Requests through a running gateway while something happens to it, and commands that make it happen."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.support import CHAOS, REPOSITORY, Up, escala, token_for, wait_until

PAUSE = 0.0 if CHAOS else 0.01
"""Seconds between two requests of a client: without, they take from what happens the processor that it needs."""


def run(up: Up, *words: str) -> str:
    done = escala(words[0], "--file", str(up.file), *words[1:], environ={"PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def token_of(up: Up, *options: str) -> str:
    return token_for(up.project, *options)


class Load:
    """Requests from a few clients, each on its own keep-alive connection, until the end of the block."""

    def __init__(self, url: str, token: str, path: str = "/echo", clients: int = 4, verify: bool = True) -> None:
        self.answers: Counter[int] = Counter()
        self.errors: list[str] = []
        self.replicas: Counter[str] = Counter()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(url, token, path, verify), daemon=True) for _ in range(clients)
        ]

    def _ask(self, url: str, token: str, path: str, verify: bool) -> None:
        with httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60, verify=verify
        ) as http:
            while not self._stop.wait(PAUSE):
                try:
                    answer = http.get(path)
                except httpx.TransportError as error:
                    self.errors.append(repr(error))
                    continue
                self.answers[answer.status_code] += 1
                if answer.status_code == 200:
                    self.replicas[answer.json()["replica"]] += 1

    @property
    def count(self) -> int:
        return self.answers.total()

    def more(self, count: int = 50) -> None:
        """Wait until so many more requests were answered."""
        before = self.count
        wait_until(lambda: self.count >= before + count, f"{count} more answers; {self.errors[-3:]}")

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        self.more(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(70)


@contextmanager
def no_failure(up: Up, **options: object) -> Iterator[Load]:
    with Load(up.url, token_of(up), **options) as load:  # type: ignore[arg-type]
        yield load
    assert load.errors == []
    assert load.answers.keys() == {200}
