"""Measure how much hostile traffic slows down good traffic.

One client sends requests through the gateway at a steady pace. It is measured three times: alone; while an attacker of
each kind attacks the gateway; and while the same attacker attacks an unrelated nginx. The attacker is a separate
process on the same machine. The third measurement shows the effect of the processor time that the attacker itself
uses. Floods arrive at random, independent moments. A request counts as failed if its answer is not 200.

    python -m benchmarks.hostile [--rounds 3] [--seconds 8] [--slow 1000] [--rate 10000]
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import multiprocessing
import random
import socket
import string
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from multiprocessing.queues import Queue

from benchmarks.processes import escala_up, required, running, scratch_folder, token
from escala.processes.ports import free_port

PACE = 0.004
"""Seconds between two requests of the good client."""
CONNECTIONS = 16
"""Connections that a flooding attacker has open at a time."""

Attack = Callable[["Target"], Awaitable[None]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="duration of each measurement")
    parser.add_argument("--slow", type=int, default=1000, help="number of slow connections at a time")
    parser.add_argument("--rate", type=int, default=10_000, help="maximum number of wrong tokens per second")
    options = parser.parse_args()
    with scratch_folder() as folder:
        upstream, elsewhere, port = free_port(), free_port(), free_port()
        for server in (upstream, elsewhere):
            (folder / f"{server}.conf").write_text(f"""
                daemon off; master_process off; pid {folder}/{server}.pid; error_log /dev/null;
                events {{ worker_connections 4096; }}
                http {{
                  access_log off; keepalive_requests 1000000000; client_header_timeout 10; client_body_timeout 10;
                  server {{ listen 127.0.0.1:{server}; location / {{ return 200 'good'; }} }}
                }}""")
        (folder / "escala.toml").write_text(f"""
[project]
name = "hostile"
state = "s"

[gateway]
bind = "127.0.0.1:{port}"

[services.web]
command = "{required("nginx")} -c {folder}/{upstream}.conf"
ports = [{upstream}]
routes = ["/data"]
""")
        other = running([required("nginx"), "-c", folder / f"{elsewhere}.conf"], elsewhere)
        with escala_up(folder) as project, other:
            gateway, apart = (Target(each, token(project), options.slow, options.rate) for each in (port, elsewhere))
            compare(gateway, apart, options.rounds, options.seconds)


class Target:
    """The port to attack or measure, with a valid token, and the limits of the attackers."""

    def __init__(self, port: int, key: str, slow: int, rate: int) -> None:
        self.port, self.key, self.slow, self.rate = port, key, slow, rate
        self.statuses: Counter[str] = Counter()
        """The statuses of the answers that an attacker received."""

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def count(self, connection: socket.socket) -> None:
        """Wait for the answer on a connection, and count its status."""
        with contextlib.suppress(OSError):
            self.statuses[connection.recv(65536)[9:12].decode() or "closed"] += 1


async def slow_heads_and_bodies(target: Target) -> None:
    async def one(first: bytes, piece: bytes) -> None:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
            writer.write(first)
            reading = asyncio.create_task(reader.read(65536))
            while not reading.done():
                writer.write(piece)
                await asyncio.wait({reading}, timeout=0.5)
            target.statuses[reading.result()[9:12].decode()] += 1
            writer.close()

    body = f"POST /data HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {target.key}\r\nContent-Length: 1000\r\n\r\n"
    kinds = [(b"GET /data HTTP/1.1\r\n", b"X: 1\r\n"), (body.encode(), b"x")]
    while True:
        await asyncio.gather(*(one(*kinds[number % 2]) for number in range(target.slow)))


async def wrong_tokens(target: Target) -> None:
    header, payload, signature = target.key.split(".")
    letters = string.ascii_letters + string.digits
    connections = deque(socket.create_connection(target.address) for _ in range(CONNECTIONS))
    waiting: deque[socket.socket] = deque()
    async for _ in at_random(target.rate):
        if len(waiting) == CONNECTIONS:
            connections.append(waiting.popleft())
            target.count(connections[-1])
        noise = signature[:-24] + "".join(random.choices(letters, k=24))
        wrong = f"GET /data HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {header}.{payload}.{noise}\r\n\r\n"
        connections[0].sendall(wrong.encode())
        waiting.append(connections.popleft())


async def floods_of_headers(target: Target) -> None:
    head = f"GET /data HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {target.key}\r\n".encode()
    shapes = [b"X: 1\r\n" * 500, b"X: " + b"a" * 20_000 + b"\r\n", b"Content-Length: 1\r\nContent-Length: 2\r\n"]
    waiting: deque[socket.socket] = deque()
    async for number in at_random(target.rate):
        if len(waiting) == CONNECTIONS:
            with waiting.popleft() as connection:
                target.count(connection)
        waiting.append(socket.create_connection(target.address))
        with contextlib.suppress(ConnectionError):  # refused before everything was sent
            waiting[-1].sendall(head + shapes[number % 3] + b"\r\n")


async def at_random(rate: int) -> AsyncIterator[int]:
    """Yield at random, independent moments, `rate` times a second on average if this process is fast enough."""
    due = time.perf_counter()
    for number in itertools.count():
        due += random.expovariate(rate)
        time.sleep(max(0.0, due - time.perf_counter()))  # asyncio.sleep is only accurate to a millisecond
        if number % 100 == 0:
            await asyncio.sleep(0)
        yield number


ATTACKS: tuple[Attack, ...] = (slow_heads_and_bodies, wrong_tokens, floods_of_headers)


def attack(target: Target, kind: Attack, seconds: float, said: "Queue[Counter[str]]") -> None:
    """Attack for `seconds`, in a process of its own. Put the statuses of the answers into `said`."""

    async def run() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await kind(target)

    asyncio.run(run())
    said.put(target.statuses)


class Good:
    """A good client: sends requests at a steady pace, one at a time, on one connection."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []
        self.statuses: Counter[str] = Counter()

    async def ask(self, target: Target, seconds: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        request = f"GET /data HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {target.key}\r\n\r\n".encode()
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
            self.milliseconds.append((time.perf_counter() - began) * 1000)
            self.statuses[head[9:12].decode()] += 1
            await asyncio.sleep(PACE)
        writer.close()

    @property
    def p99(self) -> float:
        return sorted(self.milliseconds)[int(len(self.milliseconds) * 0.99)]


def compare(gateway: Target, elsewhere: Target, rounds: int, seconds: float) -> None:
    print(f"\none good request every {PACE * 1000:g} ms; {rounds} rounds of {seconds:g} s, in turn\n")
    alone = Good()
    beside, control = ({kind: Good() for kind in ATTACKS} for _ in range(2))
    answers: dict[Attack, Counter[str]] = {kind: Counter() for kind in ATTACKS}
    for _ in range(rounds):
        for kind in ATTACKS:
            asyncio.run(alone.ask(gateway, seconds / len(ATTACKS)))
            answers[kind] += under(gateway, gateway, kind, seconds, beside[kind])
            under(gateway, elsewhere, kind, seconds, control[kind])
    print(f"{'alone':<36} p99 {alone.p99:6.2f} ms  {dict(alone.statuses)}")
    figures: dict[str, float] = {"p99_alone_ms": round(alone.p99, 2)}
    failed = 0
    for kind in ATTACKS:
        name, good, apart = kind.__name__, beside[kind], control[kind]
        print(f"{name:<36} p99 {good.p99:6.2f} ms  {dict(good.statuses)}, the attacker {dict(answers[kind])}")
        print(f"{'  the same, aimed elsewhere':<36} p99 {apart.p99:6.2f} ms")
        figures[f"p99_{name}_vs_alone"] = round(good.p99 / alone.p99, 2)
        figures[f"p99_{name}_vs_elsewhere"] = round(good.p99 / apart.p99, 2)
        failed += sum(count for status, count in good.statuses.items() if status != "200")
    print()
    print(json.dumps({**figures, "failed": failed}))


def under(gateway: Target, aim: Target, kind: Attack, seconds: float, good: Good) -> Counter[str]:
    """Send good requests to the gateway while `aim` is attacked. Return the statuses of the attacker's answers."""
    context = multiprocessing.get_context("spawn")
    said: Queue[Counter[str]] = context.Queue()
    attacker = context.Process(target=attack, args=(aim, kind, seconds + 12, said), daemon=True)
    attacker.start()
    time.sleep(2)  # until the attack has started
    asyncio.run(good.ask(gateway, seconds))
    answers = said.get(timeout=60)
    attacker.join(10)
    return answers


if __name__ == "__main__":
    main()
