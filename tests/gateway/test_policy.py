"""Each policy of a route, through the real gateway."""

import asyncio
import contextlib
import gzip
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import websockets

from tests.gateway.http2 import Asked, streams
from tests.support import Up, access_log, client, escala, wait_until


def test_scopes_are_all_needed(gate: Up, make_token: Callable[..., str]) -> None:
    for scopes, expected in (("a b:write", 200), ("a", 403), ("b:write", 403), ("ab:write a", 403), ("x", 403)):
        with client(gate.url, make_token("--scope", scopes)) as http:
            answers = [http.get("/scoped") for _ in range(3)]  # verified, then known
            assert [answer.status_code for answer in answers] == [expected] * 3, scopes
            if expected == 403:
                assert answers[0].headers["www-authenticate"].startswith('Bearer error="insufficient_scope"')


def test_public_routes_need_no_token(gate: Up) -> None:
    assert httpx.get(f"{gate.url}/public").status_code == 200
    assert httpx.get(f"{gate.url}/echo").status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/public/%69nner",  # what a service decodes to /public/inner
        "/public%2finner",
        "/public/inner;a",
        "/public/..;/public/inner",
        "/public/%2e;b/inner",
        "/public/inner%3bc",
        "/public/;/inner",
        "/public/%3b/inner",
        "/public/%2E%2E/echo",
        "/public/../echo/%zz",
        "/public/%",
        "/public/%4",
        "/public//inner",
        "/public/..\\\\echo",
        "/public/a%5cb",
        "/public/%00",
    ],
)
def test_no_spelling_of_a_path_gets_around_its_policy(gate: Up, path: str) -> None:
    with socket.create_connection(("127.0.0.1", gate.project.config.gateway.bind.port), timeout=10) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert raw.recv(65536).startswith(b"HTTP/1.1 400 "), path


def test_other_encoded_characters_pass(http: httpx.Client) -> None:
    assert http.get("/public/x%20y%C3%A9").json()["path"] == "/public/x yé"
    assert http.get("/public/inner", headers={"X-Forwarded": "1", "X_Forwarded_For": "9"}).status_code == 200
    told = http.get("/echo", headers={"x_forwarded_for": "9", "traceparent": "a" * 55}).json()["headers"]
    assert "x_forwarded_for" not in told
    assert told["traceparent"].startswith("00-")


def test_methods(http: httpx.Client) -> None:
    assert http.get("/read").status_code == 200
    refused = http.post("/read")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert http.request("PURGE", "/echo").status_code == 405


def test_the_size_of_bodies(http: httpx.Client) -> None:
    assert http.post("/small", content=b"x" * 100).json()["body"] == 100
    assert http.post("/small", content=b"x" * 101).status_code == 413
    assert http.post("/echo", content=b"x" * 101).status_code == 200


def test_the_time_of_answers(http: httpx.Client) -> None:
    assert http.get("/quick?seconds=0").status_code == 200
    assert http.get("/quick?seconds=5").status_code == 504
    assert http.get("/slow?seconds=0.5").status_code == 200


def test_rate_limits(gate: Up, http: httpx.Client, make_token: Callable[..., str]) -> None:
    statuses = [http.get("/limited/address").status_code for _ in range(8)]
    assert statuses == [200] * 5 + [429] * 3
    refused = http.get("/limited/address")
    assert int(refused.headers["retry-after"]) == 720
    assert refused.json()["detail"] == "At most 5 requests in 3600 s per address; slow down."
    for _ in range(2):  # each token has its own
        with client(gate.url, make_token()) as other:
            assert [other.get("/limited/token").status_code for _ in range(6)] == [200] * 4 + [429] * 2
            shouted = {"Authorization": other.headers["authorization"].replace("Bearer", "bEARER")}
            assert other.get("/limited/token", headers=shouted).status_code == 429
    assert [httpx.get(f"{gate.url}/limited/route").status_code for _ in range(8)] == [200] * 6 + [429] * 2


def test_a_limit_comes_before_the_token_is_looked_at(gate: Up) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    statuses = [httpx.get(f"{gate.url}/limited/early", headers=wrong).status_code for _ in range(8)]
    assert statuses == [401] * 5 + [429] * 3


def test_cors(gate: Up, http: httpx.Client) -> None:
    asking = {"Origin": "https://shop.example", "Access-Control-Request-Method": "PUT"}
    preflight = httpx.options(f"{gate.url}/cors", headers=asking)  # carries no token
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "https://shop.example"
    assert "PUT" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-credentials"] == "true"
    answer = http.get("/cors", headers={"Origin": "https://shop.example"})
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert "Origin" in answer.headers["vary"]
    refused = httpx.get(f"{gate.url}/cors", headers={"Origin": "https://shop.example"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://shop.example")
    stranger = http.get("/cors", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in stranger.headers
    assert httpx.options(f"{gate.url}/cors", headers={**asking, "Origin": "https://evil.example"}).status_code == 401
    anybody = httpx.get(f"{gate.url}/open", headers={"Origin": "https://evil.example"})
    assert anybody.headers["access-control-allow-origin"] == "*"


def test_compression(http: httpx.Client) -> None:
    with http.stream("GET", "/large", headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw) == b"flight " * 10_000
    assert "content-encoding" not in http.get("/large", headers={"Accept-Encoding": "identity"}).headers
    plain = http.get("/plain", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert len(plain.content) == 70_000


def test_response_headers(http: httpx.Client) -> None:
    usual = http.get("/echo").headers
    assert usual["x-content-type-options"] == "nosniff"
    assert usual["x-frame-options"] == "DENY"
    assert http.get("/echo?own-header").headers["x-frame-options"] == "SAMEORIGIN"
    changed = http.get("/headers").headers
    assert "x-frame-options" not in changed
    assert changed["x-team"] == "100 % ours"
    assert http.get("/nowhere").headers["x-content-type-options"] == "nosniff"


def test_what_the_service_is_told(http: httpx.Client) -> None:
    lies = {
        "X-Forwarded-For": "1.2.3.4",
        "X-Forwarded-Host": "evil.example",
        "X-Real-IP": "1.2.3.4",
        "Forwarded": "for=1.2.3.4",
        "X-Request-ID": "mine",
    }
    lies |= {name.replace("-", "_"): value for name, value in lies.items() if name != "Forwarded"}
    lies |= {"X-Real_IP": "1.2.3.4", "X_Request-ID": "mine"}
    answer = http.get("/echo", headers={**lies, "X_Ours": "kept", "X-Requested-With": "kept"})
    told = answer.json()["headers"]
    assert told["x-forwarded-for"] == "127.0.0.1"
    assert told["x-forwarded-proto"] == "http"
    kept = {"x-forwarded-for", "x-forwarded-proto", "x-request-id"}
    assert {name for name in told if name.startswith(("x", "forwarded"))} == {*kept, "x_ours", "x-requested-with"}
    assert told["x-request-id"] == answer.headers["x-request-id"] != "mine"
    version, trace, span, flags = told["traceparent"].split("-")
    assert (version, trace, len(span), flags) == ("00", told["x-request-id"], 16, "01")
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
    assert http.get("/echo", headers={"traceparent": given}).json()["headers"]["traceparent"] == given
    two = http.get("/echo", headers=[("traceparent", "evil"), ("traceparent", given)]).json()["headers"]["traceparent"]
    assert two.startswith("00-")
    assert two != given
    ends = http.get("/echo", headers={"Connection": "close, X-Forwarded-For, Authorization"}).json()["headers"]
    assert "authorization" not in ends.get("connection", "").lower()
    assert {"x-forwarded-for", "authorization"} <= ends.keys()


def test_the_cache_answers_public_routes(gate: Up, http: httpx.Client) -> None:
    url = f"{gate.url}/cached/page"
    first = httpx.get(url)
    assert first.headers["cache-control"] == "public, max-age=60"
    assert [httpx.get(url).json()["calls"] for _ in range(5)] == [first.json()["calls"]] * 5
    assert httpx.get(f"{url}?other").json()["query"] == "other"
    fresh = httpx.get(url, headers={"Cache-Control": "no-cache"}).json()
    assert (fresh["replica"], fresh["calls"]) != (first.json()["replica"], first.json()["calls"])
    posted = httpx.post(url)
    assert posted.json()["method"] == "POST"
    assert "cache-control" not in posted.headers
    for header in ({"Authorization": "Bearer mine"}, {"Cookie": "session=mine"}):
        personal = [httpx.get(f"{url}/personal", headers=header) for _ in range(2)]
        assert personal[0].json()["headers"] != personal[1].json()["headers"]  # each request has its own id
        assert not any("cache-control" in answer.headers for answer in personal)
        assert not {name.lower() for name in header} & httpx.get(f"{url}/personal").json()["headers"].keys()
    cookies = [httpx.get(f"{url}/cookie?set-cookie") for _ in range(2)]
    assert cookies[0].json() != cookies[1].json()
    assert not any("cache-control" in answer.headers for answer in cookies)
    for body in (b"evil", iter([b"evil"])):  # with its length, and in chunks
        assert httpx.request("GET", f"{url}/fat", content=body).json()["body"] == 4
        assert httpx.get(f"{url}/fat").json()["body"] == 0
        assert httpx.request("GET", f"{url}/fat", content=b"more!").json()["body"] == 5
    for body in (b"evil", b"", b"more!", b""):  # HTTP/2 announces no length
        (answer,) = streams(gate.url, [Asked("/cached/hidden", body=body)])
        assert json.loads(answer.body)["body"] == len(body)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("a.example", 200),
        ("A.Example:8000", 200),
        ("a.example.", 200),
        ("a.example.:8000", 200),
        ("x.b.example", 200),
        ("b.example", 404),
        ("y.x.b.example", 404),
        ("c", 404),
    ],
)
def test_hosts(http: httpx.Client, host: str, expected: int) -> None:
    assert http.get("/hosted", headers={"Host": host}).status_code == expected
    assert http.get("/echo", headers={"Host": host}).status_code == 200


def test_a_share_goes_to_another_service(http: httpx.Client) -> None:
    services = Counter(http.get("/canary").json()["replica"].partition("/")[0] for _ in range(300))
    assert services.keys() == {"web", "next"}
    assert 45 <= services["next"] <= 140  # 30 % of 300, within five standard deviations


def test_rewriting(http: httpx.Client) -> None:
    assert http.get("/outer/x?y=1").json()["path"] == "/inner/deep/x"
    assert http.get("/outer").json()["path"] == "/inner/deep"
    assert http.get("/outerx").status_code == 404


def test_a_full_queue_is_503_and_order_is_kept(gate: Up, make_token: Callable[..., str]) -> None:
    token = make_token()
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        clients = [stack.enter_context(client(gate.url, token)) for _ in range(8)]  # first: to make one takes long
        answers = list(pool.map(lambda own: own.get("/busy?seconds=0.4"), clients))
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() == {200, 503}
    assert 3 <= statuses[200] <= 4  # one at work, two that wait, and maybe one that came as the first was done
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.headers["retry-after"] == "1"


def test_who_waits_too_long_gets_503(gate: Up, make_token: Callable[..., str], tmp_path: Path) -> None:
    token, done = make_token(), tmp_path / "done"

    def ask(query: str) -> int:
        with client(gate.url, token) as own:
            return own.get(f"/busy?seconds=0&{query}").status_code

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, f"until={done}")
        wait_until(lambda: sum(p["inflight"] or 0 for p in gate.replicas("busy")) == 1, "the replica is busy")
        assert pool.submit(ask, "").result() == 503
        done.touch()
        assert first.result() == 200


def test_a_route_with_a_balance_of_its_own_waits_apart(
    gate: Up, make_token: Callable[..., str], tmp_path: Path
) -> None:
    token, enough = make_token(), tmp_path / "enough"

    def ask(path: str) -> int:
        with client(gate.url, token) as own:
            return own.get(path).status_code

    def inflight() -> int:
        return sum(p["inflight"] or 0 for p in gate.replicas("busy"))

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ask, f"/apart?seconds=0&until={enough}")
        wait_until(lambda: inflight() == 1, "its own limit is reached")
        other = pool.submit(ask, f"/busy?seconds=0&until={enough}")
        wait_until(lambda: inflight() == 2, "the replica has one of the others too, and both are counted")
        assert ask("/apart?seconds=0") == 503  # after its own 100 ms, when neither is done
        enough.touch()
        assert (first.result(), other.result()) == (200, 200)
    wait_until(lambda: _in_log(gate, "/apart", "busy"), "the log names the service")


def _in_log(gate: Up, route: str, service: str) -> bool:
    return any((entry.route, entry.service) == (route, service) for entry in access_log(gate.project))


def test_a_cookie_keeps_the_replica(gate: Up, make_token: Callable[..., str]) -> None:
    homes = set()
    for _ in range(6):
        with client(gate.url, make_token()) as browser:
            first = browser.get("/sticky")
            assert "httponly" in first.headers["set-cookie"].lower()
            replicas = {browser.get("/sticky").json()["replica"] for _ in range(8)}
            assert replicas == {first.json()["replica"]}
            homes |= replicas
    assert len(homes) > 1


def test_the_same_tenant_the_same_replica(http: httpx.Client) -> None:
    homes = {}
    for tenant in map(str, range(30)):
        replicas = {http.get("/hashed", headers={"X-Tenant": tenant}).json()["replica"] for _ in range(3)}
        assert len(replicas) == 1
        homes[tenant] = replicas.pop()
    assert set(homes.values()) == {"hashed/1", "hashed/2", "hashed/3"}


def test_in_turn(http: httpx.Client) -> None:
    answered = Counter(http.get("/even").text for _ in range(30))
    assert answered == {"even/1": 10, "even/2": 10, "even/3": 10}


def test_the_better_of_two(http: httpx.Client) -> None:
    answered = Counter(http.get("/drawn").text for _ in range(90))
    assert len(answered) == 3
    assert max(answered.values()) < 60


def test_one_is_filled_before_the_next(gate: Up, http: httpx.Client, make_token: Callable[..., str]) -> None:
    assert {http.get("/filled").text for _ in range(10)} == {"filled/1"}
    with ThreadPoolExecutor(3) as pool:
        held = [
            pool.submit(httpx.get, f"{gate.url}/filled?hold=3", headers={"Authorization": f"Bearer {make_token()}"})
            for _ in range(3)
        ]
        answered = Counter(each.result().text for each in held)
    assert answered == {"filled/1": 2, "filled/2": 1}


def test_a_new_replica_is_eased_in(gate: Up, http: httpx.Client) -> None:
    done = escala("scale", "eased=2", "--file", str(gate.file))
    assert done.returncode == 0, done.stderr
    answered = Counter(http.get("/eased").text for _ in range(200))
    assert 0 < answered["eased/2"] < 50


def test_what_may_be_repeated_is_when_its_replica_dies(gate: Up, http: httpx.Client, tmp_path: Path) -> None:
    def all_ready() -> bool:
        return [p["state"] for p in gate.replicas("web")] == ["serving", "serving"]

    answer = http.get("/dies", params={"file": str(tmp_path / "get")})
    assert answer.status_code == 200
    for method, path in (("POST", "/dies"), ("GET", "/once")):
        wait_until(all_ready, "both replicas are back")
        # On a connection that had carried requests before, HAProxy closes it instead: the client is to repeat those.
        with contextlib.suppress(httpx.RemoteProtocolError):
            assert http.request(method, path, params={"file": str(tmp_path / method)}).status_code == 502
        assert (tmp_path / method).exists() or path == "/once"
    wait_until(all_ready, "both replicas are back for whoever comes next")


def test_events_come_one_by_one(http: httpx.Client) -> None:
    with http.stream("GET", "/events?count=3&pause=0.2") as answer:
        pieces = list(answer.iter_text())
    assert len(pieces) >= 3
    assert "".join(pieces) == "".join(f"id: {n}\ndata: {n}\n\n" for n in range(3))
    assert http.get("/events?count=10000").text.count("data: ") == 10_000


def test_chunked_uploads_are_not_gathered(gate: Up, make_token: Callable[..., str]) -> None:
    with socket.create_connection(("127.0.0.1", gate.project.config.gateway.bind.port), timeout=10) as raw:
        head = [
            "POST /upload HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {make_token()}",
            "Transfer-Encoding: chunked",
        ]
        raw.sendall("\r\n".join([*head, "", ""]).encode())
        for _ in range(3):
            raw.sendall(b"3\r\nabc\r\n")
            wait_until(lambda: sum(p["inflight"] or 0 for p in gate.replicas("web")) >= 1, "it is on its way")
        raw.sendall(b"0\r\n\r\n")
        answer = raw.recv(65536)
    assert b"200 OK" in answer
    assert b'"size":9' in answer
    assert b'"chunked":true' in answer


def test_trailers_are_no_headers(gate: Up, make_token: Callable[..., str]) -> None:
    with socket.create_connection(("127.0.0.1", gate.project.config.gateway.bind.port), timeout=10) as raw:
        head = f"POST /echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {make_token()}\r\nTransfer-Encoding: chunked"
        raw.sendall(f"{head}\r\n\r\n3\r\nabc\r\n0\r\nX-Real-IP: 1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n".encode())
        answer = raw.recv(65536)
    assert b'"body":3' in answer
    assert b"1.2.3.4" not in answer


def test_chunked_uploads_are_counted_by_route(http: httpx.Client) -> None:
    def chunks(size: int) -> Iterator[bytes]:
        for _ in range(size // 10):
            yield b"0123456789"

    assert http.post("/piecemeal", content=chunks(100)).json()["size"] == 100
    claimed = {"X-Escala-Max-Body": "1000"}
    refused = http.post("/piecemeal", content=chunks(110), headers=claimed)
    assert (refused.status_code, refused.text) == (413, "The body is larger than the 100 bytes allowed.")
    assert http.post("/upload", content=chunks(1000)).json()["size"] == 1000


def test_websockets(gate: Up, make_token: Callable[..., str]) -> None:
    url = gate.url.replace("http", "ws") + "/talk"

    async def talk() -> list[str | bytes]:
        headers = {"Authorization": f"Bearer {make_token()}"}
        async with websockets.connect(url, additional_headers=headers) as connection:
            heard = []
            for text in ("a", "b", "c" * 100_000):
                await connection.send(text)
                heard.append(await connection.recv())
            return heard

    assert asyncio.run(talk()) == ["A", "B", "C" * 100_000]
    with pytest.raises(websockets.InvalidStatus):
        asyncio.run(_connect(url))


async def _connect(url: str) -> None:
    async with websockets.connect(url):
        pass


def test_the_access_log_says_what_happened(gate: Up, make_token: Callable[..., str]) -> None:
    with client(gate.url, make_token("--user", 'Zoë \t"x"')) as http:
        ids = [http.get("/echo/a%20b?secret=1").headers["x-request-id"] for _ in range(3)]
        ids += [http.get("/nowhere").headers["x-request-id"]]

    def lines() -> list[object]:
        return [entry for entry in access_log(gate.project) if entry.id in ids]

    wait_until(lambda: len(lines()) == 4, "the lines are there")
    entries = [entry for entry in access_log(gate.project) if entry.id in ids]
    for entry in entries[:3]:
        assert (entry.method, entry.path, entry.status) == ("GET", "/echo/a%20b", 200)
        assert (entry.route, entry.service, entry.subject) == ("/echo", "web", 'Zoë \t"x"')
        assert entry.replica in {"1", "2"}
        assert entry.termination == "--"
        assert entry.total >= entry.response >= 0
        assert entry.sent > 100
    assert (entries[3].status, entries[3].route, entries[3].subject) == (404, None, None)


def test_lines_wait_while_a_killed_collector_is_started_again(gate: Up, http: httpx.Client) -> None:
    def logged(ids: list[str]) -> bool:
        return {*ids} <= {entry.id for entry in access_log(gate.project)}

    first = http.get("/echo").headers["x-request-id"]
    wait_until(lambda: logged([first]), "the line is there")
    collector = next(each for each in gate.status()["processes"] if each["service"] == "access-log")
    os.kill(collector["pid"], signal.SIGKILL)
    ids = [http.get("/echo").headers["x-request-id"] for _ in range(100)]
    wait_until(lambda: logged(ids), "the lines are there")


def test_metrics(gate: Up, http: httpx.Client) -> None:
    http.get("/echo")
    url = gate.status()["metrics"]
    text = httpx.get(url).text
    assert 'haproxy_server_http_responses_total{proxy="web",server="1",code="2xx"}' in text
    assert 'haproxy_frontend_http_requests_total{proxy="gateway"}' in text

    def routes() -> str:
        return httpx.get(f"{url}/routes").text

    wait_until(lambda: 'escala_route_duration_seconds_count{route="/echo"}' in routes(), "the route is counted")
    assert "escala_access_log_lost_total 0" in routes()
    assert httpx.get(url.replace("/metrics", "/other")).status_code == 404
