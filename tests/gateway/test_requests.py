"""Requests of every shape that clients send, through the real gateway: methods, paths, hosts, heads, who left."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import websockets
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.types import TextContent

from tests.support import Up, access_log, client, escala, wait_until


@pytest.fixture
def raw(gate: Up, make_token: Callable[..., str]) -> Callable[..., bytes]:
    """Return a function that sends bytes and returns what comes back; TOKEN in them is a token."""
    token = make_token().encode()

    def send(data: bytes, *, seconds: float = 10.0, source: str = "127.0.0.1") -> bytes:
        address = ("127.0.0.1", gate.project.config.gateway.bind.port)
        with socket.create_connection(address, timeout=seconds, source_address=(source, 0)) as connection:
            connection.sendall(data.replace(b"TOKEN", token))
            received = b""
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                while piece := connection.recv(65536):
                    received += piece
                    if b"\r\n\r\n" in received and _is_whole(received):
                        break
            return received

    return send


def _is_whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(lengths) and len(body) >= int(lengths[0].split(b":")[1])


def told(answer: bytes) -> dict[str, Any]:
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
    return json.loads(answer.partition(b"\r\n\r\n")[2])  # type: ignore[no-any-return]


# Methods


@pytest.mark.parametrize("method", ["PROPFIND", "REPORT", "MKCALENDAR", "QUERY", "BREW", "X-Own"])
def test_any_method(http: httpx.Client, method: str) -> None:
    answer = http.request(method, "/dav/x", content=b"<a/>")
    assert answer.status_code == 405  # the service's own word: Starlette knows its methods
    assert "allow" in answer.headers
    assert "request_id" not in answer.text


def test_methods_by_name(http: httpx.Client) -> None:
    assert "request_id" not in http.request("QUERY", "/ask").text
    refused = http.request("BREW", "/ask")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, QUERY, PROPFIND")
    assert http.get("/ask").status_code == 200


# Paths


@pytest.mark.parametrize(
    "path",
    [
        "/files/a%2Fb",
        "/files/web/https://example.com//x",
        "/files/a;v=1/b",
        "/files/@scope%2fname",
        "/files//",
        "/files/",
    ],
)
def test_paths_as_they_are(raw: Callable[..., bytes], path: str) -> None:
    answer = raw(f"GET {path}?raw HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\n\r\n".encode())
    assert told(answer)["raw"] == path


@pytest.mark.parametrize(
    "path",
    [
        "/files/../echo",
        "/files/%2e%2e/echo",
        "/files/..%2fecho",
        "/files/..;/echo",
        "/files/a;b%2f..%2f..%2fecho",
        "/files\\..\\echo",
        "/files/%5c",
        "/files/%00",
        "/files/%zz",
        "/files/./x",
        "/files//secret",
        "/files/%73ecret",
        "/files%2fsecret",
        "/files/;x/secret",
        "/files/;%2fq/secret",
        "/files/x;%2f../secret",
        "/files/secret;x",
        "/files;%2fx/secret%3b",
        "//files/x",
        "/echo//x",
        "/echo/a%2fb",
    ],
)
def test_no_path_as_it_is_gets_around_a_policy(raw: Callable[..., bytes], path: str) -> None:
    answer = raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:300]
    assert b"ambiguous" in answer


# Hosts


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("GET /public HTTP/1.1\r\n", 400),
        ("GET /public HTTP/1.1\r\nHost:\r\n", 400),
        ("GET /public HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400),
        ("GET /public HTTP/1.1\r\nHost: a/b\r\n", 400),
        ("GET /public HTTP/1.1\r\nHost: a:xx\r\n", 400),
        ('GET /public HTTP/1.1\r\nHost: a"b\r\n', 400),
        ("GET /public HTTP/1.1\r\nHost: [::1]:8000\r\n", 200),
        ("GET /public HTTP/1.1\r\nHost: my_host.example\r\n", 200),
        ("GET /public HTTP/1.0\r\n", 200),
        ("GET /public HTTP/1.0\r\nHost: <a>\r\n", 400),
        ("CONNECT /dav HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET http://shop.example/public HTTP/1.1\r\n", 400),
        ("GET http://shop.example/public HTTP/1.1\r\nHost: other\r\n", 400),
        ("GET http://shop.example/public HTTP/1.1\r\nHost: shop.example\r\n", 200),
        ("GET http:///public HTTP/1.0\r\n", 400),
        ("GET http://user:secret@shop.example/public HTTP/1.0\r\n", 400),
    ],
)
def test_the_host(raw: Callable[..., bytes], head: str, expected: int) -> None:
    assert raw(f"{head}\r\n".encode()).startswith(f"HTTP/1.1 {expected} ".encode())


def test_the_target_names_the_host(raw: Callable[..., bytes]) -> None:
    """Its route is that host's, and the service gets the path alone, with the host in the header."""
    hosted = b"GET http://a.example/hosted HTTP/1.0\r\n\r\n"
    assert raw(hosted).startswith(b"HTTP/1.1 401 ")
    assert raw(b"GET /hosted HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 404 ")
    answer = told(raw(b"GET http://a.example/hosted?x=1 HTTP/1.0\r\nAuthorization: Bearer TOKEN\r\n\r\n"))
    assert (answer["headers"]["host"], answer["path"], answer["query"]) == ("a.example", "/hosted", "x=1")


# Heads


def test_large_heads(raw: Callable[..., bytes], http: httpx.Client) -> None:
    head = b"GET /public HTTP/1.1\r\nHost: x\r\n"
    many = b"".join(b"X-%d: a\r\n" % number for number in range(200))
    assert raw(head + many + b"\r\n").startswith(b"HTTP/1.1 200 ")
    assert raw(head + b"X: " + b"a" * 14_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert raw(head + b"X: " + b"a" * 16_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    answer = http.get("/fast/answer", params={"X-Large": "a" * 9000, "X-Other": "b" * 200})
    assert answer.status_code == 200


def test_an_answer_with_too_large_a_head_says_what_to_do(gate: Up, http: httpx.Client) -> None:
    answer = http.get("/echo", params={"head": "20000"})
    assert answer.status_code == 502
    assert "15 KiB (gateway.max_head)" in answer.json()["detail"]


# Clients that leave, and those that stall


def test_an_app_learns_that_the_client_has_left(gate: Up, make_token: Callable[..., str]) -> None:
    with client(gate.url, make_token()) as http:
        with contextlib.suppress(httpx.TimeoutException):
            httpx.get(f"{gate.url}/slow?until-left=yes", headers=http.headers, timeout=0.5)
        wait_until(lambda: http.get("/slow?left=yes").json()["left"] >= 1, "the app saw it", 3)

    def logged() -> list[int]:
        entries = [entry for entry in access_log(gate.project) if entry.route == "/slow"]
        return [entry.status for entry in entries if entry.termination == "CH"]

    wait_until(logged, "it is logged")
    assert set(logged()) == {499}


def test_a_services_own_400_stays(http: httpx.Client) -> None:
    assert http.get("/fast/status/400").status_code == 400


def test_a_new_clients_post_does_not_take_a_connection_that_others_used(
    gate: Up, make_token: Callable[..., str]
) -> None:
    headers = {"Authorization": f"Bearer {make_token()}"}
    for _ in range(10):
        assert httpx.get(f"{gate.url}/closing", headers=headers).status_code == 200
        assert httpx.post(f"{gate.url}/closing", headers=headers, content=b"x").status_code == 200


# WebSockets

KEY = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer TOKEN\r\n"
)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /talk HTTP/1.1\r\nHost: x\r\n" + KEY + b"Content-Length: 5\r\n\r\nhello",
        b"GET /talk HTTP/1.1\r\nHost: x\r\n" + KEY + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"POST /talk HTTP/1.1\r\nHost: x\r\n" + KEY + b"\r\n",
    ],
)
def test_a_handshake_that_is_none_is_refused_at_once(raw: Callable[..., bytes], request_: bytes) -> None:
    began = time.monotonic()
    assert raw(request_).startswith(b"HTTP/1.1 400 ")
    assert time.monotonic() - began < 5


def test_another_protocol_offered_beside_a_body(raw: Callable[..., bytes]) -> None:
    offered = KEY.replace(b"websocket", b"foo/2", 1)
    answer = raw(b"POST /upload HTTP/1.1\r\nHost: x\r\n" + offered + b"Content-Length: 5\r\n\r\nhello")
    assert told(answer)["size"] == 5


async def test_idle_websockets_do_not_shut_out_requests(gate: Up, make_token: Callable[..., str]) -> None:
    """More of them than `inflight`, which is 128."""
    url = gate.url.replace("http://", "ws://") + "/fast/talk"
    headers = {"Authorization": f"Bearer {make_token()}"}
    async with contextlib.AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(websockets.connect(url, additional_headers=headers)) for _ in range(140)
        ]
        await sockets[-1].send("hello")
        assert (await sockets[-1].recv()) == "fast/1 hello"
        async with httpx.AsyncClient(base_url=gate.url, headers=headers) as http:
            assert (await http.get("/fast/me")).status_code == 200


async def test_a_handshake_gets_nobody_past_the_limit_in_flight(gate: Up, make_token: Callable[..., str]) -> None:
    """`busy` takes one request at a time, two wait for a second: what only looks like a WebSocket waits with them."""
    headers = {"Authorization": f"Bearer {make_token()}", "Connection": "Upgrade", "Upgrade": "xwebsocket"}
    async with httpx.AsyncClient(base_url=gate.url, headers=headers, timeout=20) as http:
        answers = await asyncio.gather(*(http.get("/busy?seconds=1.5") for _ in range(6)))
    assert sorted(answer.status_code for answer in answers).count(200) <= 2


# Behind proxies


@pytest.mark.parametrize(
    ("source", "forwarded", "expected"),
    [
        ("127.0.0.1", "9.9.9.9", "127.0.0.1"),  # no proxy of ours
        ("127.0.0.9", "9.9.9.9", "9.9.9.9"),
        ("127.0.0.9", "6.6.6.6, 9.9.9.9", "9.9.9.9"),  # what the proxy was told itself is anybody's word
        ("127.0.0.9", "6.6.6.6, 9.9.9.9, 10.1.2.3", "9.9.9.9"),  # a second proxy of ours
        ("127.0.0.9", "nonsense", "127.0.0.9"),
        ("127.0.0.9", "6.6.6.6, unknown", "127.0.0.9"),  # what stands before it is anybody's word
        ("127.0.0.9", "6.6.6.6, [2001:db8::1]:4711", "127.0.0.9"),
        ("127.0.0.9", "6.6.6.6, unknown, 10.1.2.3", "10.1.2.3"),
    ],
)
def test_who_the_client_is(raw: Callable[..., bytes], source: str, forwarded: str, expected: str) -> None:
    head = f"GET /public HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {forwarded}\r\nX-Forwarded-Proto: https\r\n\r\n"
    headers = told(raw(head.encode(), source=source))["headers"]
    assert headers["x-forwarded-for"] == expected
    assert headers["x-forwarded-proto"] == ("http" if source == "127.0.0.1" else "https")


# Below a prefix


def test_fastapi_knows_its_prefix(gate: Up, http: httpx.Client) -> None:
    found = http.get("/fast/me").json()
    assert found == {"url": f"{gate.url}/fast/me", "path": "/fast/me", "root": "/fast"}
    assert "/fast/openapi.json" in http.get("/fast/docs").text
    assert http.get("/fast/openapi.json").json()["servers"] == [{"url": "/fast"}]


def test_flask_knows_its_prefix(gate: Up, http: httpx.Client) -> None:
    assert http.get("/flask/me").json() == {"url": "/flask/me", "full": f"{gate.url}/flask/me"}


def test_nobody_else_says_where_a_service_stands(http: httpx.Client) -> None:
    lying = {"X-Forwarded-Prefix": "/evil", "X-Escala-Check": "x", "x_escala_check": "x"}
    told = http.get("/echo", headers=lying).json()["headers"]
    assert not {"x-forwarded-prefix", "x-escala-check", "x_escala_check"} & told.keys()
    assert http.get("/fast/me", headers=lying).json()["root"] == "/fast"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Location", "/store/me", "/fast/store/me"),
        ("Location", "/fast/store/me", "/fast/store/me"),  # of an app that knows
        ("Location", "/", "/fast/"),
        ("Location", "/?q=1", "/fast/?q=1"),
        ("Location", "/fast", "/fast"),
        ("Location", "/faster", "/fast/faster"),
        ("Location", "//HOST/store/me", "//HOST/fast/store/me"),
        ("Location", "http://HOST/store", "http://HOST/fast/store"),
        ("Location", "http://HOST/fast/store", "http://HOST/fast/store"),
        ("Location", "http://other.example/store", "http://other.example/store"),
        ("Location", "//other.example/store", "//other.example/store"),
        ("Location", "store", "store"),
        ("Content-Location", "/a.json", "/fast/a.json"),
        ("Link", '</next>; rel="next"', '</fast/next>; rel="next"'),
        ("Link", '</fast/next>; rel="next"', '</fast/next>; rel="next"'),
        ("Link", '<https://other.example/>; rel="x"', '<https://other.example/>; rel="x"'),
        ("Refresh", "5; url=/next", "5; url=/fast/next"),
        ("Set-Cookie", "a=1; Path=/store; HttpOnly", "a=1; Path=/fast/store; HttpOnly"),
        ("Set-Cookie", "a=1; path=/fast/store", "a=1; path=/fast/store"),
        ("Set-Cookie", "a=1; Path=/", "a=1; Path=/"),
        ("Set-Cookie", "a=1; Path=/fast", "a=1; Path=/fast"),
    ],
)
def test_paths_in_answers(gate: Up, http: httpx.Client, name: str, value: str, expected: str) -> None:
    host = gate.url.removeprefix("http://")
    answer = http.get("/fast/answer", params={name: value.replace("HOST", host)})
    assert answer.headers[name] == expected.replace("HOST", host)


def test_several_cookies_each_get_their_path(http: httpx.Client) -> None:
    answer = http.get("/fast/answer", params=[("Set-Cookie", "a=1; Path=/fast/x"), ("Set-Cookie", "b=1; Path=/y")])
    assert answer.headers.get_list("set-cookie") == ["a=1; Path=/fast/x", "b=1; Path=/fast/y"]


# The gateway's cache


def cached(gate: Up, key: str, **headers: str) -> tuple[str | None, httpx.Response]:
    answer = httpx.get(f"{gate.url}/open-fast/answer", params={"X-Key": key, **headers})
    return answer.headers.get("age"), answer


def test_what_may_not_be_kept_is_not(gate: Up) -> None:
    for key, headers in {
        "plain": {},
        "aged": {"Cache-Control": "max-age=60", "Expires": "Thu, 01 Jan 1970 00:00:00 GMT"},
    }.items():
        assert cached(gate, key, **headers)[0] is None
        assert cached(gate, key, **headers)[0] is not None, key
    for key, headers in {
        "past": {"Expires": "Thu, 01 Jan 1970 00:00:00 GMT"},
        "unreadable": {"Expires": "0"},
        "with another word": {"Expires": "0", "Cache-Control": "public"},
        "no-store": {"Cache-Control": "no-store"},
        "cookie": {"Set-Cookie": "a=1"},
    }.items():
        assert [cached(gate, key, **headers)[0] for _ in range(2)] == [None, None], key


def test_a_request_may_ask_not_to_be_kept(gate: Up) -> None:
    url = f"{gate.url}/open-fast/answer?X-Key=asks"
    for _ in range(2):
        assert "age" not in httpx.get(url, headers={"Cache-Control": "no-store"}).headers
    assert "age" not in httpx.get(url).headers
    assert "age" in httpx.get(url).headers


def test_a_successful_change_empties_the_cache_of_its_url(gate: Up) -> None:
    url = f"{gate.url}/cached/changed"
    assert "age" not in httpx.get(url).headers
    assert "age" in httpx.get(url).headers
    assert httpx.put(url, content=b"new").status_code == 200
    assert "age" not in httpx.get(url).headers
    assert "age" in httpx.get(f"{gate.url}/cached").headers or "age" in httpx.get(f"{gate.url}/cached").headers


def test_an_answer_for_everybody_keeps_nobody_at_a_replica(gate: Up) -> None:
    first, second = (httpx.get(f"{gate.url}/cookied/x") for _ in range(2))
    for answer in (first, second):
        assert "set-cookie" not in answer.headers
        assert answer.headers["cache-control"] == "public, max-age=60"
    assert "age" in second.headers
    assert "set-cookie" in httpx.post(f"{gate.url}/cookied/x").headers


# Sessions in a header


def test_a_header_keeps_a_client_at_its_replica(http: httpx.Client) -> None:
    for _ in range(6):
        begun = http.get("/named/begin")
        name, session = begun.json(), begun.headers["x-session"]
        for _ in range(4):
            found = http.get("/named/go-on", headers={"X-Session": session}).json()
            assert found == {"replica": name["replica"], "known": True, "name": name["name"]}
    assert {http.get("/named/begin").json()["replica"] for _ in range(6)} == {"named/1", "named/2", "named/3"}


@pytest.mark.parametrize("session", ["", "nobody", "nobody~99", "~", "q~none", "a~1~2", "x" * 3000 + "~1"])
def test_a_session_that_nobody_named_goes_anywhere(http: httpx.Client, session: str) -> None:
    assert http.get("/named/go-on", headers={"X-Session": session}).json()["known"] is False


def test_a_session_is_nothing_for_everybody(gate: Up) -> None:
    """Neither an answer that names one nor a request with one goes into the gateway's cache, or comes from it."""
    begun = [httpx.get(f"{gate.url}/named-open/begin") for _ in range(4)]
    assert len({answer.json()["name"] for answer in begun}) == 4
    assert {answer.headers.get("age") for answer in begun} == {None}
    for answer in begun:
        session = {"X-Session": answer.headers["x-session"]}
        found = httpx.get(f"{gate.url}/named-open/go-on", headers=session).json()
        assert (found["known"], found["name"]) == (True, answer.json()["name"])


def test_a_change_counts_however_the_host_is_spelled(gate: Up) -> None:
    url, port = f"{gate.url}/cached/spelled", gate.project.config.gateway.bind.port
    assert "age" not in httpx.get(url, headers={"Host": "shop.example"}).headers
    assert "age" in httpx.get(url, headers={"Host": "shop.example"}).headers
    httpx.put(url, content=b"new", headers={"Host": f"SHOP.example.:{port}"})
    assert "age" not in httpx.get(url, headers={"Host": "shop.example"}).headers


@contextlib.asynccontextmanager
async def mcp_session(gate: Up, token: str) -> AsyncIterator[Callable[[int], Awaitable[dict[str, Any]]]]:
    """Lend a session of the MCP SDK's client as a function that calls the server's one tool."""
    http = create_mcp_http_client(headers={"Authorization": f"Bearer {token}"})
    async with (
        http,
        streamable_http_client(f"{gate.url}/mcp", http_client=http) as streams,
        ClientSession(streams[0], streams[1]) as session,
    ):
        await session.initialize()

        async def add(amount: int) -> dict[str, Any]:
            content = (await session.call_tool("add", {"amount": amount})).content[0]
            assert isinstance(content, TextContent)
            return json.loads(content.text)  # type: ignore[no-any-return]

        yield add


async def test_mcp_sessions_scale(gate: Up, make_token: Callable[..., str]) -> None:
    """Each stays at its replica, over a reload of the gateway too; the death of one replica ends its sessions alone."""
    token = make_token()
    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(mcp_session(gate, token)) for _ in range(3)]
        homes = [(await add(0))["replica"] for add in sessions]
        assert len(set(homes)) == 3
        for _ in range(3):
            assert [(await add(1))["replica"] for add in sessions] == homes
        rotated = await asyncio.to_thread(escala, "keys", "rotate", "--file", str(gate.file))  # reloads the gateway
        assert rotated.returncode == 0, rotated.stderr
        assert [(await add(1))["replica"] for add in sessions] == homes
        victim = (await sessions[0](0))["pid"]
        os.kill(victim, signal.SIGKILL)
        for add, home in list(zip(sessions, homes, strict=True))[1:]:
            for _ in range(5):
                assert (await add(1))["replica"] == home
        with pytest.raises(Exception, match=r"[Ss]ession"):
            async with asyncio.timeout(20):
                await sessions[0](1)
        async with mcp_session(gate, token) as add:
            assert (await add(1))["pid"] != victim
