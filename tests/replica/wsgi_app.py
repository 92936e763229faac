"""A WSGI app (PEP 3333) that does what the tests of a server ask for by its path."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

Start = Callable[..., Callable[[bytes], object]]
TEXT = [("Content-Type", "text/plain")]


def log(word: str) -> None:
    """Note what happened, where the tests see it."""
    with Path(os.environ["WSGI_LOG"]).open("a") as file:
        file.write(f"{word}\n")


class Closing:
    """An iterable that notes its `close`."""

    def __init__(self, blocks: Iterable[bytes], name: str) -> None:
        self._blocks = iter(blocks)
        self._name = name

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks

    def close(self) -> None:
        log(f"closed {self._name}")


def environ(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "application/json")])
    plain = {key: value for key, value in env.items() if isinstance(value, str | bool | int)}
    kinds = {key: type(value).__name__ for key, value in env.items()}
    return [json.dumps({"environ": plain, "kinds": kinds, "version": env["wsgi.version"]}).encode()]


def echo(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    body = env["wsgi.input"].read()
    start("200 OK", TEXT)
    return [body]


def lines(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Read in all ways that the input has."""
    stream = env["wsgi.input"]
    found = [stream.read(2), stream.readline(), stream.readline(3), *stream, stream.read()]
    start("200 OK", TEXT)
    return [b"|".join(found)]


def first(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Answer after the first bytes of a body."""
    head = env["wsgi.input"].read(5)
    start("200 OK", TEXT)
    return [head]


def unread(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("413 Content Too Large", [*TEXT, ("Content-Length", "4")])
    return [b"no!\n"]


def write(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    send = start("200 OK", TEXT)
    send(b"one ")
    send(b"two ")
    return [b"three"]


def blocks(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Yield a block, and the next only after the test has seen the first."""
    start("200 OK", TEXT)

    def generate() -> Iterator[bytes]:
        yield b"first\n"
        time.sleep(0.5)
        yield b"second\n"

    return Closing(generate(), "blocks")


def late(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Call start_response in the iterator, after an empty block, as PEP 3333 allows."""

    def generate() -> Iterator[bytes]:
        start("201 Created", TEXT)
        yield b""
        yield b"made"

    return generate()


def empty(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("204 No Content", [])
    return []


def unchanged(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("304 Not Modified", [("ETag", '"x"')])
    return []


def nothing(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    return Closing([], "nothing")


def length(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", [*TEXT, ("Content-Length", "5")])
    return Closing([b"12", b"345"], "length")


def raises(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    raise ValueError("before the head")


def exits(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    raise SystemExit(3)


def broken(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Fail after the head and a block: nothing can be mended, and the client must see that the answer is cut off."""
    start("200 OK", TEXT)

    def generate() -> Iterator[bytes]:
        yield b"a block\n"
        raise ValueError("after the head")

    return Closing(generate(), "broken")


def replaced(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Replace a head that is not out yet by that of an error."""
    start("200 OK", TEXT)
    try:
        raise ValueError("noticed in time")
    except ValueError:
        start("503 Service Unavailable", TEXT, sys.exc_info())
    return [b"sorry"]


def too_late(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    """Try it when the head is out: start_response must raise."""
    send = start("200 OK", TEXT)
    send(b"out ")
    try:
        raise ValueError("noticed too late")
    except ValueError:
        try:
            start("503 Service Unavailable", TEXT, sys.exc_info())
        except ValueError:
            return [b"raised"]
    return [b"did not raise"]


def file(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    source = Path(__file__).open("rb")  # noqa: SIM115 - the wrapper closes it
    start("200 OK", TEXT)
    return env["wsgi.file_wrapper"](source, 100)  # type: ignore[no-any-return]


def headers(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", [*TEXT, ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Name", "caf\xe9")])
    return [b""]


def forever(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)

    def generate() -> Iterator[bytes]:
        log("begun forever")
        while True:
            yield b"x" * 100
            time.sleep(0.02)

    return Closing(generate(), "forever")


def waits(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    time.sleep(0.3)
    start("200 OK", TEXT)
    return [threading.current_thread().name.encode()]


def app(env: dict[str, Any], start: Start) -> Iterable[bytes]:
    found = globals().get(env["PATH_INFO"].strip("/").partition("/")[0])
    if found is None:
        start("404 Not Found", TEXT)
        return [b"no such page"]
    return found(env, start)  # type: ignore[no-any-return]
