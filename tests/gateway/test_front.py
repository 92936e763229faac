"""A gateway behind proxies that speak the PROXY protocol, with large heads and short patience."""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from escala.control.client import Client
from escala.processes.ports import free_port
from tests.support import REPOSITORY, Up, access_log, wait_until


@pytest.fixture(scope="module")
def up(make_folder: Callable[[], Path], seed: Callable[[Path], Path]) -> Iterator[Up]:
    folder = seed(make_folder())
    (folder / "escala.toml").write_text(
        f"""
[project]
name = "front"
[gateway]
bind = "127.0.0.1:{free_port()}"
public = true
timeout = "2s"
max_head = "40KiB"
forwarded = ["127.0.0.9/32"]
proxy_protocol = true
[services.web]
app = "tests.gateway.app:app"
routes = ["/"]
[services.single]
app = "tests.gateway.app:app"
balance = {{ inflight = 1, queue_timeout = "20s" }}
routes = [{{ path = "/single", to = "/slow", timeout = "20s" }}]
[services.rare]
app = "tests.gateway.app:app"
replicas = {{ min = 0, max = 1 }}
balance = {{ inflight = 1, queue_timeout = "20s" }}
routes = [{{ path = "/rare", to = "/slow", timeout = "20s" }}]
"""
    )
    with Up(folder / "escala.toml", environ={"PYTHONPATH": str(REPOSITORY)}) as running:
        yield running.wait_open()


def ask(up: Up, data: bytes, source: str = "127.0.0.1", *, seconds: float = 10) -> bytes:
    address = ("127.0.0.1", up.project.config.gateway.bind.port)
    received = b""
    with (
        socket.create_connection(address, timeout=seconds, source_address=(source, 0)) as connection,
        contextlib.suppress(ConnectionResetError, BrokenPipeError),
    ):
        connection.sendall(data)
        while piece := connection.recv(65536):
            received += piece
    return received


GET = b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"


def test_the_proxy_protocol(up: Up) -> None:
    line = b"PROXY TCP4 9.9.9.9 127.0.0.1 4444 80\r\n"
    forged = b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\r\n"
    headers = json.loads(ask(up, line + GET + forged, "127.0.0.9").partition(b"\r\n\r\n")[2])["headers"]
    assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == ("9.9.9.9", "http")
    assert ask(up, GET + b"\r\n", "127.0.0.9") == b""  # a proxy that does not say who the client is
    headers = json.loads(ask(up, GET + forged).partition(b"\r\n\r\n")[2])["headers"]
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert ask(up, line + GET + b"\r\n").startswith(b"HTTP/1.1 400 ")  # nobody else may say it


@pytest.mark.parametrize(("size", "expected"), [(20_000, 200), (39_000, 200), (60_000, 400)])
def test_large_heads_where_they_are_admitted(up: Up, size: int, expected: int) -> None:
    answer = ask(up, GET + b"X-Large: " + b"a" * size + b"\r\n\r\n")
    assert answer.startswith(f"HTTP/1.1 {expected} ".encode())
    reply = ask(up, GET.replace(b"/echo", f"/echo?head={size}".encode()) + b"\r\n")
    assert reply.startswith(b"HTTP/1.1 200 " if expected == 200 else b"HTTP/1.1 502 ")
    assert (b"40 KiB (gateway.max_head)" in reply) is (expected != 200)


def test_a_stalled_upload_is_408(up: Up) -> None:
    answer = ask(up, b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 20_000)
    assert answer.startswith(b"HTTP/1.1 408 "), answer[:100]
    assert b"did not arrive in time" in answer


def test_who_leaves_while_a_service_wakes_up_holds_nobody_up(up: Up) -> None:
    """The request waits for the first replica, which takes longer to start than the client has patience."""
    address = ("127.0.0.1", up.project.config.gateway.bind.port)
    with socket.create_connection(address, timeout=10) as leaving:
        leaving.sendall(b"GET /rare?seconds=18 HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = ask(up, b"GET /rare?seconds=0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", seconds=15)
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_who_leaves_the_queue_is_not_served(up: Up) -> None:
    """`single` takes one request at a time."""
    address = ("127.0.0.1", up.project.config.gateway.bind.port)

    def inflight() -> int:
        services = Client(up.project).status(brief=True).services
        return sum(each.inflight for each in services if each.name == "single")

    with socket.create_connection(address, timeout=10) as holding:
        holding.sendall(b"GET /single?seconds=4 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: inflight() == 1, "one is in flight")
        with socket.create_connection(address, timeout=10) as leaving:
            leaving.sendall(b"GET /single?seconds=15 HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: inflight() == 2, "another waits")
        wait_until(lambda: inflight() <= 1, "it has left")
        asked = time.monotonic()
        answer = ask(up, b"GET /single?seconds=0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - asked < 14  # the one that left would have been served before, for fifteen seconds

    def left() -> list[int]:
        return [entry.status for entry in access_log(up.project) if entry.termination == "CQ"]

    wait_until(left, "it is logged")
    assert left() == [499]
