"""Bad input of every kind: the right 4xx with a problem document, never a 5xx."""

import base64
import json
import socket
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from escala.access_log.line import Entry
from escala.auth.key_store import KeyStore
from tests.support import Up, access_log, wait_until


@pytest.fixture(scope="module", autouse=True)
def _nothing_of_all_this_is_a_bug(laboratory: Up) -> Iterator[None]:
    """Compare the logs before and after this module: no traceback, and no 5xx from the gateway."""
    logs = laboratory.project.layout.log
    before = {file: len(file.read_text(errors="replace")) for file in logs.glob("*.log")}
    requests = len(access_log(laboratory.project))
    yield
    wait_until(lambda: len(access_log(laboratory.project)) > requests + 50, "the requests are in the access log")
    failed = [entry for entry in access_log(laboratory.project)[requests:] if entry.status >= 500]
    assert not failed, failed
    for file in logs.glob("*.log"):
        new = file.read_text(errors="replace")[before.get(file, 0) :]
        assert "Traceback" not in new, file


def is_problem(answer: httpx.Response, status: int) -> bool:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert answer.headers["x-request-id"]
    return True


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/data", 422),
        ("/data?origin=", 422),
        ("/data?origin=XXX", 422),
        ("/data?origin=JFK&carrier=ZZ", 422),
        ("/data?origin=JFK&page=-1", 422),
        ("/data?origin=JFK&page=99999999999999999999", 422),
        ("/data?origin=JFK&month=13", 422),
        ("/data?origin=JFK&limit=1e9", 422),
        ("/data?origin=%00%00%00", 422),
        ("/data?origin=JFK'%20or%201=1--", 422),
        ("/data/unknown", 404),
        ("/analytics", 400),
        ("/analytics?param=", 400),
        ("/analytics?param=%00", 400),
        ("/analytics/../db", 400),
        ("/data/%2e%2e/db", 400),
        ("/data/%2E%2e%2fdb", 400),
        ("/data/..", 400),
        ("/data/./x", 400),
        ("/db/airlines/ZZ", 404),
        ("/db/airlines/AA'--", 422),
        ("/db/airlines?limit=0", 422),
        ("/db/airlines?nonsense=1", 422),
        ("/db/airports?lat=nan", 422),
        ("/db/planes?year=99999999999", 422),
        ("/db/airlines?name=%00", 422),
        ("/db/pg_user", 404),
        ("/jobs/1", 404),
        ("/jobs/00000000-0000-0000-0000-000000000000", 404),
        ("/jobs/00000000-0000-0000-0000-000000000000/files/%00", 400),
        ("/jobs?state=bad", 422),
        ("/jobs?limit=0&before=x", 422),
        ("/nowhere", 404),
        ("/", 404),
        ("/.well-known/other", 404),
        ("/database", 404),
    ],
)
def test_paths_and_queries(http: httpx.Client, path: str, status: int) -> None:
    # As it stands: httpx would tidy it up before it is sent.
    assert is_problem(http.get("/", extensions={"target": path.encode()}), status)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/longtask", b"garbage", 400),
        ("/longtask", b"\xff\xfe\x00", 400),
        ("/longtask", b"", 422),
        ("/longtask", b"[]", 422),
        ("/longtask", b"null", 422),
        ("/longtask", b"{}", 422),
        ("/longtask", b'{"task": "absent"}', 422),
        ("/longtask", b'{"task": {"a": 1}}', 422),
        ("/longtask", b'{"task": "report", "month": 13}', 422),
        ("/longtask", b'{"task": "report", "month": "1"}', 422),
        ("/longtask", b'{"task": "report", "surprise": 1}', 422),
        ("/longtask", b'{"task": "missed_connection", "origin": "\\u0000"}', 422),
        ("/longtask", b'{"task": "missed_connection", "draws": 1e99}', 422),
        ("/longtask", b'{"task": "missed_connection", "origin": "\\ud800"}', 422),
        ("/longtask", b'{"task": "report", "month": ' + b"[" * 900 + b"]" * 900 + b"}", 422),
        ("/longtask", b"[" * 100_000, 400),
        ("/db/airlines", b'{"carrier": "Z1"}', 422),
        ("/db/airlines", b'{"carrier": "Z1", "name": ""}', 422),
        ("/db/airlines", b'{"carrier": "Z1", "name": "a\\u0000b"}', 422),
        ("/db/airlines", b'{"carrier": "lower", "name": "x"}', 422),
        ("/db/airlines", b'{"carrier": "Z1", "name": "\\ud800"}', 422),
        ("/db/airlines", b'{"carrier": "Z1", "name": "x", "extra": 1}', 422),
        ("/db/planes", b'{"tailnum": "N1", "year": 99999999999999}', 422),
    ],
)
def test_bodies(http: httpx.Client, path: str, body: bytes, status: int) -> None:
    answer = http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert is_problem(answer, status)


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "/data"), ("PATCH", "/db/airlines/AA"), ("GET", "/longtask"), ("BREW", "/data"), ("TRACE", "/data")],
)
def test_methods(http: httpx.Client, method: str, path: str) -> None:
    assert is_problem(http.request(method, path), 405)


def test_a_body_of_100_megabytes(laboratory: Up, http: httpx.Client) -> None:
    size = 100_000_000
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", laboratory.project.config.gateway.bind.port)) as raw:
        raw.settimeout(10)
        bearer = http.headers["Authorization"]
        raw.sendall(
            f"POST /longtask HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        head = raw.recv(4096)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in head
    assert time.monotonic() - began < 5

    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * (size // 100)

    try:  # without an announced length the replica counts, and may hang up while we still send
        answer = http.post("/longtask", content=chunks(), headers={"Content-Type": "application/json"})
    except httpx.WriteError:
        pass
    else:
        assert is_problem(answer, 413)
    assert http.get("/db").status_code == 200


@pytest.fixture
def key(laboratory: Up) -> RSAKey:
    return KeyStore(laboratory.project.layout).signing_key()


def claims(**changed: object) -> dict[str, object]:
    now = int(time.time())
    name = "laboratorio"
    base = {
        "iss": name,
        "aud": name,
        "sub": "ana",
        "client_id": "ana",
        "iat": now,
        "exp": now + 60,
        "jti": "j",
        "scope": "db",
    }
    return {**base, **changed}


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


Forge = Callable[[RSAKey], str]
HEADER = {"alg": "RS256", "typ": "at+jwt"}

FORGERIES: dict[str, Forge] = {
    "expired": lambda key: jwt.encode(HEADER, claims(exp=int(time.time()) - 1), key),
    "not valid yet": lambda key: jwt.encode(HEADER, claims(nbf=int(time.time()) + 60), key),
    "unsigned": lambda key: f"{encoded({**HEADER, 'alg': 'none'})}.{encoded(claims())}.",
    "unsigned, capitals": lambda key: f"{encoded({**HEADER, 'alg': 'NoNe'})}.{encoded(claims())}.",
    "foreign key": lambda key: jwt.encode(HEADER, claims(), RSAKey.generate_key(2048)),
    "foreign key, our id": lambda key: jwt.encode({**HEADER, "kid": key.kid}, claims(), RSAKey.generate_key(2048)),
    "another issuer": lambda key: jwt.encode(HEADER, claims(iss="other"), key),
    "another audience": lambda key: jwt.encode(HEADER, claims(aud="other"), key),
    "another type": lambda key: jwt.encode({**HEADER, "typ": "JWT"}, claims(), key),
    "no expiry": lambda key: jwt.encode(HEADER, {k: v for k, v in claims().items() if k != "exp"}, key),
    "changed claims": lambda key: _changed(jwt.encode(HEADER, claims(), key)),
    "one part": lambda key: "abc",
    "three empty parts": lambda key: "..",
    "no base64": lambda key: "!!.??.**",
    "five parts": lambda key: "a.b.c.d.e",
    "long": lambda key: "a" * 6000,
}


def _changed(token: str) -> str:
    header, _, signature = token.split(".")
    return f"{header}.{encoded(claims(sub='root'))}.{signature}"


@pytest.mark.parametrize("name", FORGERIES)
def test_tokens(laboratory: Up, key: RSAKey, name: str) -> None:
    """The gateway refuses each, and so does a replica that is asked past the gateway."""
    headers = {"Authorization": f"Bearer {FORGERIES[name](key)}"}
    (database,) = laboratory.replicas("database")
    at_gateway = httpx.get(f"{laboratory.url}/db", headers=headers)
    assert is_problem(at_gateway, 401)
    assert at_gateway.headers["www-authenticate"].startswith('Bearer error="invalid_token"')
    in_replica = httpx.get(f"http://{database['address']}/db", headers=headers)
    assert in_replica.status_code == 401
    assert in_replica.headers["www-authenticate"].startswith('Bearer error="invalid_token"')


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": ""}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer"}]
)
def test_no_token(laboratory: Up, headers: dict[str, str]) -> None:
    answer = httpx.get(f"{laboratory.url}/db", headers=headers)
    assert is_problem(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_scope_that_is_missing(laboratory: Up, tokens: Callable[..., str]) -> None:
    for scopes in ("data", "dbx xdb db:write"):
        answer = httpx.get(f"{laboratory.url}/db", headers={"Authorization": f"Bearer {tokens('--scope', scopes)}"})
        assert is_problem(answer, 403)
        assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="db"'


@pytest.mark.parametrize(
    "request_line",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /db HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"GET /db HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
        b"POST /db HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_http(laboratory: Up, request_line: bytes) -> None:
    with socket.create_connection(("127.0.0.1", laboratory.project.config.gateway.bind.port), timeout=10) as raw:
        raw.sendall(request_line)
        answer = b"".join(iter(lambda: raw.recv(4096), b""))
    # HAProxy answers these before there is a request, with a page of its own: docs/architecture.md says why.
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert answer.count(b"HTTP/1.1") == 1


def test_each_refusal_is_one_line_in_the_log(laboratory: Up, http: httpx.Client) -> None:
    log = laboratory.project.layout.log
    before = {file: file.read_text().count("\n") for file in log.glob("*.log")}
    ids = {http.get("/nowhere").headers["x-request-id"] for _ in range(5)}

    def mine() -> list[Entry]:
        return [entry for entry in access_log(laboratory.project) if entry.id in ids]

    wait_until(lambda: len(mine()) >= 5, "the access log has all of them")
    assert [(entry.status, entry.path, entry.service) for entry in mine()] == [(404, "/nowhere", "gateway")] * 5
    assert {file: file.read_text().count("\n") for file in log.glob("*.log")} == before
