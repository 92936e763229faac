"""Tokens at the gateway: verified once and then looked up, and never good for longer than they are."""

import socket
import string
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from escala.auth.key_store import KeyStore
from escala.config import Address
from escala.engines import haproxy
from escala.gateway.render.context import Key
from escala.gateway.render.maps import backends_map, routes_map
from escala.gateway.render.render import render
from escala.gateway.topology.servers import Server
from escala.gateway.topology.topology import Topology
from escala.processes.ports import free_port
from escala.project.layout import Layout
from tests.gateway.examples import render_context
from tests.gateway.http2 import Asked, streams
from tests.support import minimal_config, wait_until

SCOPES = [f"s{number}" for number in range(70)]  # more than two words of bits

AUTH = {"max_ttl": "1h", "remember": 1000, "remember_for": "1h", "wrong_tokens": 200}


class Alone:
    """HAProxy with our configuration and nothing behind it: 503 says that a token was good."""

    def __init__(self, folder: Path) -> None:
        self.store = KeyStore(Layout(folder / "s"))
        self.rsa = self.store.signing_key()
        self.elliptic = ECKey.generate_key("P-256", auto_kid=True)
        self.store.trust(self.elliptic.as_dict(private=False, use="sig", alg="ES256"))
        routes = [{"path": f"/{scope}", "scopes": [scope], "methods": ["GET"]} for scope in SCOPES]
        web = {"app": "a:b", "routes": [*routes, "/any", {"path": "/two", "scopes": ["s1", "s69"]}]}
        config = minimal_config(services={"web": web}, auth=AUTH)
        keys = []
        for number, public in enumerate(self.store.public_keys()):
            (folder / f"{number}.pem").write_text(public.pem)
            keys.append(Key(public.kid, public.algorithm, str(folder / f"{number}.pem")))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        bind = f"[::]:{port} v4v6" if socket.has_dualstack_ipv6() else f"127.0.0.1:{port}"
        context = render_context(
            str(folder), bind=bind, admin=f"127.0.0.1:{free_port()}", access_log=None, keys=tuple(keys)
        )
        topology = Topology.of(config)
        Path(context.routes).write_text(routes_map(topology))
        Path(context.backends).write_text(backends_map(topology))
        for path in (context.revoked_tokens, context.revoked_users):
            Path(path).write_text("")
        self.file = folder / "alone.cfg"
        servers = {name: [Server(1, Address("127.0.0.1", 1), "maint")] for name in topology.services}
        self.file.write_text(render(topology, servers, context))
        self.socket = context.socket

    def token(self, key: RSAKey | ECKey | None = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        key = key or self.rsa
        algorithm = "ES256" if isinstance(key, ECKey) else "RS256"
        now = int(time.time())
        whole = {"iss": "tests", "aud": "tests", "sub": "ana", "jti": uuid.uuid4().hex, "iat": now, "exp": now + 600}
        given = {name: value for name, value in {**whole, **claims}.items() if value is not None}
        words = {"alg": algorithm, "kid": key.kid, "typ": "at+jwt", **(header or {})}
        words = {name: value for name, value in words.items() if value is not None}
        return jwt.encode(words, given, key, algorithms=["RS256", "ES256"])

    def status(self, token: str, path: str = "/any") -> int:
        return httpx.get(self.url + path, headers={"Authorization": f"Bearer {token}"}).status_code

    def rows(self) -> int:
        """Return how many tokens are remembered."""
        return self.command("show table escala.tokens").count("key=")

    def command(self, text: str) -> str:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(self.socket)
            raw.sendall(f"{text}\n".encode())
            return b"".join(iter(lambda: raw.recv(65536), b"")).decode()


@pytest.fixture(scope="module")
def alone(make_folder: Callable[[], Path]) -> Iterator[Alone]:
    made = Alone(make_folder())
    process = subprocess.Popen([str(haproxy.find(None)), "-db", "-f", str(made.file)], stdout=subprocess.DEVNULL)

    def answers() -> bool:
        try:
            return httpx.get(made.url).status_code == 404
        except httpx.TransportError:
            return False

    wait_until(answers, "HAProxy answers")
    yield made
    process.terminate()
    process.wait(10)


def test_both_keys_each_with_its_own_algorithm(alone: Alone) -> None:
    assert alone.status(alone.token()) == 503
    assert alone.status(alone.token(alone.elliptic)) == 503


def test_known_tokens_leave_a_row_and_wrong_ones_none(alone: Alone) -> None:
    alone.command("clear table escala.tokens")
    before = alone.rows()
    token = alone.token()
    assert [alone.status(token) for _ in range(5)] == [503] * 5
    assert alone.rows() == before + 1
    assert [alone.status(f"{token[:-4]}{n:04}") for n in range(50)] == [401] * 50
    assert alone.rows() == before + 1


def test_an_address_has_a_budget_of_wrong_tokens(alone: Alone) -> None:
    known = alone.token()
    with httpx.Client(base_url=alone.url) as client:

        def answer(token: str) -> httpx.Response:
            return client.get("/any", headers={"Authorization": f"Bearer {token}"})

        assert answer(known).status_code == 503
        wrong = f"{known[:-4]}wxyz"
        for _ in range(300):  # good ones, whatever the answer is, are not counted
            assert client.get("/s1", headers={"Authorization": f"Bearer {alone.token()}"}).status_code == 403

        def refused() -> httpx.Response | None:
            """Spend the budget, a little of which is back some milliseconds later, and ask with a good token."""
            fresh = alone.token()
            spent = any(answer(wrong).status_code == 429 for _ in range(100))
            answered = answer(fresh)
            return answered if spent and answered.status_code == 429 else None

        assert wait_until(refused, "the budget is spent").headers["retry-after"] == "1"
        assert answer(known).status_code == 503
        wait_until(lambda: answer(alone.token()).status_code == 503, "the budget is there again")
    assert "127.0.0.1" in alone.command("show table escala.refused")  # not all of IPv4 as one network of IPv6
    alone.command("clear table escala.refused")


def test_a_known_token_is_not_good_for_longer_than_it_says(alone: Alone) -> None:
    token = alone.token(exp=int(time.time()) + 2)
    assert alone.status(token) == 503
    wait_until(lambda: alone.status(token) == 401, "it has expired", 5)


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ({"typ": "JWT"}, {}),
        ({"typ": None}, {}),
        ({"kid": "unknown"}, {}),
        ({"kid": None}, {}),
        ({}, {"iss": "other"}),
        ({}, {"iss": None}),
        ({}, {"aud": "other"}),
        ({}, {"exp": 1}),
        ({}, {"exp": None}),
        ({}, {"exp": "never"}),
        ({}, {"exp": 2**40}),
        ({}, {"exp": -1}),
        ({}, {"nbf": 2**31}),
        ({}, {"sub": None}),
        ({}, {"jti": None}),
    ],
)
def test_what_is_refused(alone: Alone, header: dict[str, Any], claims: dict[str, Any]) -> None:
    before = alone.rows()
    token = alone.token(header=header, **claims)
    assert [alone.status(token) for _ in range(2)] == [401, 401]
    assert alone.rows() == before


def test_the_key_of_another_algorithm(alone: Alone) -> None:
    foreign = ECKey.generate_key("P-256")
    assert alone.status(alone.token(foreign, {"kid": alone.rsa.kid})) == 401
    assert alone.status(alone.token(RSAKey.generate_key(2048), {"kid": alone.rsa.kid})) == 401
    assert alone.status(alone.token(RSAKey.generate_key(2048), {"kid": alone.elliptic.kid})) == 401


def test_scopes_in_every_word_of_bits(alone: Alone) -> None:
    token = alone.token(scope="s0 s31 s32 s63 s64 s69")
    for number in (0, 31, 32, 63, 64, 69):
        assert alone.status(token, f"/s{number}") == 503
    for number in (1, 30, 33, 62, 65, 68):
        assert alone.status(token, f"/s{number}") == 403
    assert alone.status(token, "/two") == 403
    assert alone.status(alone.token(scope="s69 s1"), "/two") == 503
    assert alone.status(alone.token(scope="xs1 s69x"), "/two") == 403
    assert alone.status(alone.token(), "/s0") == 403


def test_a_rule_for_more_routes_than_a_line_has_room_for(alone: Alone) -> None:
    headers = {"Authorization": f"Bearer {alone.token(scope=' '.join(SCOPES))}"}
    for path in (*SCOPES[:2], *SCOPES[-2:]):
        assert httpx.get(f"{alone.url}/{path}", headers=headers).status_code == 503
        assert httpx.post(f"{alone.url}/{path}", headers=headers).status_code == 405
    assert httpx.post(f"{alone.url}/any", headers=headers).status_code == 503


def test_two_authorization_headers(alone: Alone) -> None:
    token = alone.token()
    headers = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    assert httpx.get(f"{alone.url}/any", headers=headers).status_code == 401
    assert alone.status(f"{token}, Bearer {token}") == 401


def test_more_tokens_than_are_remembered(alone: Alone) -> None:
    """The table stays bounded, and whoever falls out of it is only verified again."""
    first = alone.token()
    assert alone.status(first) == 503
    with httpx.Client(base_url=alone.url) as http:
        for _ in range(1100):
            answer = http.get("/any", headers={"Authorization": f"Bearer {alone.token(alone.elliptic)}"})
            assert answer.status_code == 503
    assert alone.rows() <= 1000
    assert alone.status(first) == 503


def test_a_connection_lends_its_token_to_no_other_request(alone: Alone) -> None:
    """The gateway remembers a connection's last header; each request still stands for itself."""
    ana, ben = alone.token(scope="s1"), alone.token(sub="ben", scope="s2")
    with httpx.Client(base_url=alone.url) as http:

        def status(path: str, *headers: str) -> int:
            return http.get(path, headers=[("Authorization", header) for header in headers]).status_code

        for _ in range(3):
            assert status("/s1", f"Bearer {ana}") == 503
            assert status("/s1") == 401
            assert status("/s1", "Bearer") == 401
            assert status("/s1", "") == 401
            assert status("/s1", f"Bearer {ana}x") == 401
            assert status("/s1", f"Bearer {ana[:-1]}") == 401
            assert status("/s1", f"bearer {ana}") == 503  # the scheme's case means nothing (RFC 9110, 11.1)
            assert status("/s1", f"Bearer {ana}", f"Bearer {ben}") == 401
            assert status("/s1", f"Bearer {ben}", f"Bearer {ana}") == 401
            assert status("/s2", f"Bearer {ana}") == 403
            assert status("/s2", f"Bearer {ben}") == 503
            assert status("/s1", f"Bearer {ben}") == 403
        alone.command("clear table escala.tokens")
        assert status("/s1", f"Bearer {ana}") == 503


@pytest.mark.parametrize("elliptic", [False, True])
def test_a_token_is_spelled_in_one_way(alone: Alone, elliptic: bool) -> None:
    token = alone.token(alone.elliptic if elliptic else None)
    alone.command("clear table escala.tokens")
    digits = string.ascii_letters + string.digits + "-_"
    accepted = []
    with httpx.Client(base_url=alone.url) as http:
        for header in (
            *(f"Bearer{' ' * blanks}{token}" for blanks in range(1, 5)),
            *(f"Bearer {token}{more}" for more in ("=", "==", " x", ",")),
            *(f"Bearer {token[:-1]}{digit}" for digit in digits),
        ):
            status = http.get("/any", headers={"Authorization": header}).status_code
            assert status in {503, 401}
            if status == 503:
                accepted.append(header)
    assert set(accepted) == {f"Bearer {token}"}
    assert alone.rows() == 1


def test_streams_of_one_connection_keep_their_tokens_apart(alone: Alone) -> None:
    """HTTP/2: many requests at a time share a connection, and what it remembers."""
    ana, ben = alone.token(scope="s1"), alone.token(sub="ben", scope="s2")
    wanted = [("/s1", ana, 503), ("/s2", ana, 403), ("/s1", None, 401), ("/s1", ben, 403), ("/s2", ben, 503)] * 16
    answers = streams(alone.url, [Asked(path, token) for path, token, _ in wanted])
    assert [answer.status for answer in answers] == [status for _, _, status in wanted]
