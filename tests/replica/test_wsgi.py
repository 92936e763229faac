"""What PEP 3333 wants of a server: of Escala's own, and of gunicorn beside it as the measure."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from escala.processes.ports import free_port
from tests.support import REPOSITORY, wait_until

THREADS = 4
APP = "tests.replica.wsgi_app:app"


class Server:
    """A running server: where it listens, and what the app noted."""

    def __init__(self, name: str, port: int, log: Path) -> None:
        self.name = name
        self.port = port
        self.log = log
        self.url = f"http://127.0.0.1:{port}"

    def noted(self, word: str) -> int:
        return self.log.read_text().splitlines().count(word) if self.log.exists() else 0

    def raw(self, *pieces: bytes) -> bytes:
        """Send bytes, and return all that comes until the server closes or says nothing more."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            for piece in pieces:
                connection.sendall(piece)
            connection.settimeout(2)
            received = b""
            try:
                while data := connection.recv(65536):
                    received += data
            except TimeoutError:
                pass
            return received


def _command(name: str, port: int) -> list[str]:
    if name == "gunicorn":
        options = ["-k", "gthread", "--threads", str(THREADS), "--keep-alive", "75", "--bind", f"127.0.0.1:{port}"]
        return [sys.executable, "-m", "gunicorn", "--log-level", "critical", *options, APP]
    options = ["--root", str(REPOSITORY), "--port", str(port), "--threads", str(THREADS), "--max-body", "1000000"]
    return [sys.executable, "-P", "-m", "escala.replica", "app", APP, *options]


@pytest.fixture(scope="module", params=["escala", "gunicorn"])
def server(request: pytest.FixtureRequest, make_folder: Callable[[], Path]) -> Iterator[Server]:
    found = Server(request.param, free_port(), make_folder() / "log")
    process = subprocess.Popen(
        _command(found.name, found.port),
        cwd=REPOSITORY,
        env={**os.environ, "WSGI_LOG": str(found.log), "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        try:
            return httpx.get(f"{found.url}/nothing").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, f"{found.name} answers")
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=10) as client:
        yield client


def test_the_environ(server: Server, http: httpx.Client) -> None:
    sent = [(b"X-Two", b"1"), (b"X-Two", b"2"), (b"Content-Type", b"text/x"), (b"X-Name", b"caf\xe9")]
    found = http.post("/environ/p%C3%A4th%2Fx?q=%20a&b", headers=sent, content=b"body").json()
    environ = found["environ"]
    for name, value in {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/environ/päth/x".encode().decode("latin-1"),
        "QUERY_STRING": "q=%20a&b",
        "RAW_URI": "/environ/p%C3%A4th%2Fx?q=%20a&b",
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "4",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_PORT": str(server.port),
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_X_TWO": "1,2",
        "HTTP_X_NAME": "café",
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }.items():
        assert environ[name] == value, name
    assert found["version"] == [1, 0]
    assert "HTTP_CONTENT_TYPE" not in environ
    assert found["kinds"]["SERVER_PORT"] == "str"
    assert {"wsgi.input", "wsgi.errors", "wsgi.file_wrapper"} <= found["kinds"].keys()


def test_headers_with_underscores_do_not_pass_for_others(server: Server) -> None:
    request = b"GET /environ HTTP/1.1\r\nHost: x\r\nX_User: root\r\nConnection: close\r\n\r\n"
    environ = json.loads(server.raw(request).partition(b"\r\n\r\n")[2].split(b"\r\n")[-1] or b"{}")
    assert "HTTP_X_USER" not in environ.get("environ", {})


@pytest.mark.parametrize("size", [0, 1, 70_000, 600_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies(http: httpx.Client, size: int, chunked: bool) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    content = iter([body[:10], body[10:]]) if chunked else body
    answer = http.post("/echo", content=content)
    assert (answer.status_code, answer.content) == (200, body)


def test_all_ways_of_reading(http: httpx.Client) -> None:
    body = b"ab\ncd\nefgh\nij\nkl\nmn"
    for content in (body, iter([body[:7], body[7:]])):
        assert http.post("/lines", content=content).content == b"ab|\n|cd\n|efgh\n|ij\n|kl\n|mn|"


def test_100_continue(server: Server) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"hello")
        received = b""
        while data := connection.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"hello" in received


def test_write(http: httpx.Client) -> None:
    assert http.get("/write").text == "one two three"


def test_a_block_goes_out_at_once(server: Server, http: httpx.Client) -> None:
    before = server.noted("closed blocks")
    with http.stream("GET", "/blocks") as answer:
        pieces = list(answer.iter_raw())
    assert pieces == [b"first\n", b"second\n"]
    wait_until(lambda: server.noted("closed blocks") == before + 1, "close was called")


def test_the_head_waits_for_the_first_block(http: httpx.Client) -> None:
    answer = http.get("/late")
    assert (answer.status_code, answer.text) == (201, "made")


@pytest.mark.parametrize(("path", "status", "length"), [("/empty", 204, None), ("/unchanged", 304, None)])
def test_answers_without_a_body(http: httpx.Client, path: str, status: int, length: str | None) -> None:
    for _ in range(2):  # on one connection, which must not be out of step
        answer = http.get(path)
        assert (answer.status_code, answer.content) == (status, b"")


def test_an_empty_answer_and_one_with_its_length(server: Server, http: httpx.Client) -> None:
    assert http.get("/nothing").content == b""
    answer = http.get("/length")
    assert (answer.content, answer.headers["content-length"]) == (b"12345", "5")
    wait_until(lambda: server.noted("closed length") >= 1, "close was called")


@pytest.mark.parametrize("path", ["/length", "/nothing", "/blocks", "/echo"])
def test_head(http: httpx.Client, path: str) -> None:
    for _ in range(2):
        answer = http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
    assert http.get("/length").content == b"12345"  # nothing is left on the connection


def test_an_error_before_the_head(http: httpx.Client) -> None:
    assert http.get("/raises").status_code == 500
    assert http.get("/length").status_code == 200


def test_an_error_after_the_head_cuts_the_answer_off(server: Server, http: httpx.Client) -> None:
    before = server.noted("closed broken")
    with pytest.raises(httpx.RemoteProtocolError), http.stream("GET", "/broken") as answer:
        answer.read()
    wait_until(lambda: server.noted("closed broken") == before + 1, "close was called")


def test_exc_info(http: httpx.Client) -> None:
    answer = http.get("/replaced")
    assert (answer.status_code, answer.text) == (503, "sorry")
    assert http.get("/too_late").text == "out raised"


def test_the_file_wrapper(http: httpx.Client) -> None:
    assert http.get("/file").content == (Path(__file__).with_name("wsgi_app.py")).read_bytes()


def test_response_headers(http: httpx.Client) -> None:
    answer = http.get("/headers")
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert b"caf\xe9" in {value for _, value in answer.headers.raw}


def test_readers_who_leave_give_their_threads_back(server: Server, http: httpx.Client) -> None:
    begun, closed = server.noted("begun forever"), server.noted("closed forever")
    for _ in range(3 * THREADS):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as reader:
            reader.sendall(b"GET /forever HTTP/1.1\r\nHost: x\r\n\r\n")
            assert reader.recv(200).startswith(b"HTTP/1.1 200 ")
    wait_until(lambda: server.noted("closed forever") - closed == 3 * THREADS, "each was closed")
    assert server.noted("begun forever") - begun == 3 * THREADS
    assert http.get("/length").status_code == 200


def test_as_many_at_a_time_as_there_are_threads(server: Server) -> None:
    answers: list[Any] = []
    clients = [
        threading.Thread(target=lambda: answers.append(httpx.get(f"{server.url}/waits", timeout=30)))
        for _ in range(3 * THREADS)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert [answer.status_code for answer in answers] == [200] * (3 * THREADS)
    assert len({answer.text for answer in answers}) <= THREADS


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    one = b"GET /length HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /write HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    received = server.raw(one + one + last)
    assert received.count(b"HTTP/1.1 200 ") == 3
    assert received.find(b"12345") < received.rfind(b"12345") < received.find(b"three")


class TestEscala:
    """What Escala's own server does beside the standard."""

    @pytest.fixture(autouse=True)
    def _only_escala(self, server: Server) -> None:
        if server.name != "escala":
            pytest.skip("of Escala's server")

    def test_an_error_is_a_problem_document(self, http: httpx.Client) -> None:
        answer = http.get("/raises")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == 500

    def test_an_app_that_exits_fails_its_request_alone(self, http: httpx.Client) -> None:
        assert http.get("/exits").status_code == 500
        assert http.get("/length").status_code == 200

    def test_an_answer_before_the_body_is_read(self, http: httpx.Client) -> None:
        assert http.post("/first", content=b"hello" + b"x" * 300_000).content == b"hello"
        assert http.post("/unread", content=b"x" * 900_000).status_code == 413
        assert http.get("/length").status_code == 200

    def test_the_body_limit_counts_chunked_bodies(self, http: httpx.Client) -> None:
        refused = http.post("/echo", content=iter([b"x" * 600_000] * 2))
        assert (refused.status_code, refused.json()["status"]) == (413, 413)
        assert http.post("/echo", content=iter([b"x" * 600_000])).status_code == 200

    def test_behind_a_prefix(self, http: httpx.Client) -> None:
        environ = http.get("/environ/x", headers={"X-Forwarded-Prefix": "/shop"}).json()["environ"]
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/shop", "/environ/x")
        assert environ["RAW_URI"] == "/shop/environ/x"

    def test_the_question_whether_it_is_well_takes_no_thread(self, server: Server, http: httpx.Client) -> None:
        readers = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(THREADS)]
        try:
            for reader in readers:
                reader.sendall(b"GET /forever HTTP/1.1\r\nHost: x\r\n\r\n")
                assert reader.recv(200).startswith(b"HTTP/1.1 200 ")
            answer = http.get("/", headers={"X-Escala-Check": "web/1"})
            assert (answer.status_code, answer.headers["x-escala-threads"]) == (200, str(THREADS))
        finally:
            for reader in readers:
                reader.close()

    def test_a_client_that_left_while_it_waited_for_a_thread_is_not_served(self, server: Server) -> None:
        holding = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(THREADS)]
        for each in holding:
            each.sendall(b"GET /forever HTTP/1.1\r\nHost: x\r\n\r\n")
            assert each.recv(200).startswith(b"HTTP/1.1 200 ")
        begun = server.noted("begun forever")
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as waiting:
                waiting.sendall(b"GET /forever HTTP/1.1\r\nHost: x\r\n\r\n")
        left = time.monotonic()
        wait_until(lambda: time.monotonic() > left + 0.3, "a server has had the time to notice")
        for each in holding:
            each.close()
        wait_until(lambda: httpx.get(f"{server.url}/length").status_code == 200, "a thread is free")
        assert server.noted("begun forever") == begun
