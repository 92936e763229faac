"""Hostile traffic beside good traffic: refused with the right status, and the good requests see nothing of it."""

import asyncio
import contextlib
import os
import random
import string
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.support import Up

SLOW = int(os.environ.get("SLOW_CONNECTIONS", "300"))
"""Slow connections at a time; `make chaos` raises it."""


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def read_answer(reader: asyncio.StreamReader) -> str:
    """Read one answer whole; return its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
    return head[9:12].decode()


class Good:
    """Requests of a well-behaved client, one after another on one connection, with their statuses and times."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token
        self.statuses: Counter[str] = Counter()
        self.milliseconds: list[float] = []

    async def ask(self) -> None:
        request = f"GET /echo HTTP/1.1\r\nHost: good\r\nAuthorization: Bearer {self._token}\r\n\r\n".encode()
        async with connection(self._port) as (reader, writer):
            while True:
                began = time.perf_counter()
                writer.write(request)
                status = await read_answer(reader)
                self.milliseconds.append((time.perf_counter() - began) * 1000)
                self.statuses[status] += 1
                await asyncio.sleep(0.005)

    @property
    def p99(self) -> float:
        return sorted(self.milliseconds)[int(len(self.milliseconds) * 0.99)]


@asynccontextmanager
async def good_traffic(up: Up, token: str) -> AsyncIterator[Good]:
    """Ask all through the block; afterwards every answer was 200."""
    good = Good(up.project.config.gateway.bind.port, token)
    asking = asyncio.create_task(good.ask())
    async with asyncio.timeout(20):
        while sum(good.statuses.values()) < 20:
            await asyncio.sleep(0.01)
            assert not asking.done(), asking.exception()
    yield good
    before = sum(good.statuses.values())
    async with asyncio.timeout(20):
        while sum(good.statuses.values()) < before + 20:
            await asyncio.sleep(0.01)
            assert not asking.done(), asking.exception()
    asking.cancel()
    await asyncio.wait({asking})
    assert good.statuses.keys() == {"200"}


@pytest.fixture
def port(gate: Up) -> int:
    return gate.project.config.gateway.bind.port


async def say(port: int, *pieces: bytes, pause: float = 0.0, seconds: float = 30.0) -> str:
    """Send pieces on a connection of their own; return the status of the answer, "" where it was closed without."""
    async with connection(port) as (reader, writer):
        answering = asyncio.create_task(reader.read(65536))
        try:
            async with asyncio.timeout(seconds):
                for piece in pieces:
                    if answering.done():
                        break
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(pause)
                answer = await answering
        except ConnectionError:
            answering.cancel()
            return ""
    assert answer.count(b"HTTP/1.1 ") <= 1, answer
    return answer[9:12].decode()


def bearer(token: str) -> bytes:
    return f"Host: x\r\nAuthorization: Bearer {token}\r\n".encode()


async def test_slow_heads_and_bodies(gate: Up, port: int, make_token: Callable[..., str]) -> None:
    """Both are given up after ten seconds, and no slow body has kept a replica busy meanwhile."""
    token = make_token()
    head = b"POST /echo HTTP/1.1\r\nContent-Length: 1000\r\n" + bearer(token) + b"\r\n"
    async with good_traffic(gate, token):
        slow = [
            asyncio.create_task(say(port, first, *[piece] * 60, pause=0.25))
            for first, piece in [(b"GET /echo HTTP/1.1\r\n", b"X: 1\r\n"), (head, b"x")] * (SLOW // 2)
        ]
        while not any(task.done() for task in slow):
            inflight = await asyncio.to_thread(lambda: sum(p["inflight"] or 0 for p in gate.replicas("web")))
            assert inflight <= 2  # the good one's
            await asyncio.sleep(0.2)
        statuses = Counter(await asyncio.gather(*slow))
    assert statuses == {"408": len(slow)}


async def test_random_tokens(gate: Up, port: int, make_token: Callable[..., str]) -> None:
    """Thousands of wrong tokens of every shape: each is refused, and none is remembered."""
    token = make_token()
    header, payload, signature = token.split(".")
    letters = string.ascii_letters + string.digits + "-_"
    made = random.Random(7)

    def wrong() -> str:
        noise = "".join(made.choices(letters, k=len(signature)))
        return made.choice(
            [f"{header}.{payload}.{noise}", noise, f"{noise}.{noise}.{noise}", f"{header}.{noise}.{signature}"]
        )

    async def flood(count: int) -> Counter[str]:
        seen: Counter[str] = Counter()
        async with connection(port) as (reader, writer):
            for _ in range(count):
                writer.write(b"GET /echo HTTP/1.1\r\n" + bearer(wrong()) + b"\r\n")
                seen[await read_answer(reader)] += 1
        return seen

    async with good_traffic(gate, token):
        statuses = sum(await asyncio.gather(*(flood(500) for _ in range(10))), Counter())
    assert statuses == {"401": 5000}


SMUGGLING = {
    "both lengths": b"POST /echo HTTP/1.1\r\n@Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    b"GET /echo HTTP/1.1\r\n@\r\n",
    "two lengths": b"POST /echo HTTP/1.1\r\n@Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a list of lengths": b"POST /echo HTTP/1.1\r\n@Content-Length: 5, 6\r\n\r\nhello!",
    "a signed length": b"POST /echo HTTP/1.1\r\n@Content-Length: +5\r\n\r\nhello",
    "an unknown coding": b"POST /echo HTTP/1.1\r\n@Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked, not last": b"POST /echo HTTP/1.1\r\n@Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"POST /echo HTTP/1.1\r\n@Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "an obsolete fold": b"GET /echo HTTP/1.1\r\n@X-A: 1\r\n Content-Length: 5\r\n"
    b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a size that is none": b"POST /echo HTTP/1.1\r\n@Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n",
    "a size too large": b"POST /echo HTTP/1.1\r\n@Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n",
    "a null": b"GET /echo HTTP/1.1\r\n@X-A: a\x00b\r\n\r\n",
    "a header's name with a space": b"GET /echo HTTP/1.1\r\n@X A: 1\r\n\r\n",
    "no version": b"GET /echo\r\n\r\n",
    "a control character in the path": b"GET /ec\x01ho HTTP/1.1\r\n@\r\n",
}


async def test_smuggling(gate: Up, port: int, make_token: Callable[..., str]) -> None:
    """One answer at most, and it is a refusal, or the one request as the standard reads it."""
    token = make_token()
    # RFC 9112: with both, the length is dropped and the connection closed after the answer (6.1); a fold is a blank
    # (5.2).
    also = {"both lengths": {"200"}, "an obsolete fold": {"200"}}
    async with good_traffic(gate, token):
        for name, raw in SMUGGLING.items():
            status = await say(port, raw.replace(b"@", bearer(token)), b"", seconds=15)
            assert status in {"400", ""} | also.get(name, set()), name


async def test_bare_line_feeds_do_not_split_a_request(gate: Up, port: int, make_token: Callable[..., str]) -> None:
    token = make_token()
    raw = b"GET /echo HTTP/1.1\nHost: x\nAuthorization: Bearer " + token.encode() + b"\nX-A: b\n\n"
    assert await say(port, raw) == "200"  # a line may end so (RFC 9112, 2.2)
    assert await say(port, raw.replace(b"X-A: b", b"X-A: b\rX-B: c")) == "400"


async def test_large_and_many_headers(gate: Up, port: int, make_token: Callable[..., str]) -> None:
    token = make_token()
    async with good_traffic(gate, token):
        for extra in (
            b"X: " + b"a" * 20_000 + b"\r\n",
            b"X: 1\r\n" * 500,
            b"Authorization: Bearer " + b"a" * 9000 + b"\r\n",
        ):
            head = b"GET /echo HTTP/1.1\r\nHost: x\r\n" + extra + b"\r\n"
            assert await say(port, head) in {"400", "401", "431"}
        statuses = Counter(
            await asyncio.gather(
                *(
                    say(port, b"GET /echo HTTP/1.1\r\n" + bearer(token) + b"Y: 1\r\n" * 300 + b"\r\n")
                    for _ in range(100)
                )
            )
        )
    assert statuses == {"400": 100}
