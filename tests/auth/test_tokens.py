import base64
import json
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey

from escala.auth.jwks import JwksFile
from escala.auth.key_store import KeyStore
from escala.auth.tokens import Issuer, Verifier
from escala.errors import InvalidToken, KeyDamaged
from escala.project.layout import Layout


@pytest.fixture(scope="module")
def layout(session_folder: Path) -> Layout:
    return Layout(session_folder / "auth")


@pytest.fixture(scope="module")
def key(layout: Layout) -> RSAKey:
    return KeyStore(layout).signing_key()


@pytest.fixture(scope="module")
def verifier(layout: Layout, key: RSAKey) -> Verifier:
    return Verifier(JwksFile(layout.jwks), "shop", "shop")


@pytest.fixture(scope="module")
def issuer(key: RSAKey) -> Issuer:
    return Issuer(key, "shop", "shop")


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_a_token_comes_back_as_its_principal(issuer: Issuer, verifier: Verifier) -> None:
    token = issuer.issue("ana", ["db", "data", "db"], ttl=60)
    principal = verifier.verify(token)
    assert principal.subject == "ana"
    assert principal.scopes == {"db", "data"}
    assert principal.has("db", "data")
    assert not principal.has("db", "admin")
    assert abs(principal.expires_at - time.time() - 60) < 5


def test_claims_are_those_of_rfc_9068(issuer: Issuer, key: RSAKey) -> None:
    decoded = jwt.decode(issuer.issue("ana", ["db"]), key)
    assert {"iss", "exp", "aud", "sub", "client_id", "iat", "jti"} <= set(decoded.claims)
    assert (decoded.header["typ"], decoded.header["alg"]) == ("at+jwt", "RS256")
    assert decoded.header["kid"] == key.thumbprint()


def test_every_token_has_an_id_of_its_own(issuer: Issuer, verifier: Verifier) -> None:
    ids = {verifier.verify(issuer.issue("ana")).token_id for _ in range(20)}
    assert len(ids) == 20


def claims(**changed: object) -> dict[str, object]:
    now = int(time.time())
    base = {"iss": "shop", "aud": "shop", "sub": "ana", "iat": now, "exp": now + 60, "jti": "1", "scope": ""}
    return {name: value for name, value in {**base, **changed}.items() if value is not None}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"iss": "other"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"aud": "other"}, "another audience"),
        ({"aud": ["other"]}, "another audience"),
        ({"exp": 1}, "expired"),
        ({"exp": None}, "not a number"),
        ({"exp": "9999999999"}, "not a number"),
        ({"nbf": time.time() + 3600}, "not yet valid"),
        ({"sub": None}, "lacks"),
        ({"jti": 7}, "lacks"),
        ({"scope": ["db"]}, "lacks"),
    ],
)
def test_wrong_claims(verifier: Verifier, key: RSAKey, changed: dict[str, object], reason: str) -> None:
    token = jwt.encode({"alg": "RS256", "typ": "at+jwt", "kid": key.kid}, claims(**changed), key)
    with pytest.raises(InvalidToken, match=reason):
        verifier.verify(token)


def test_an_audience_among_several(verifier: Verifier, key: RSAKey) -> None:
    token = jwt.encode({"alg": "RS256", "typ": "at+jwt", "kid": key.kid}, claims(aud=["x", "shop"]), key)
    assert verifier.verify(token).subject == "ana"


def test_another_type_of_token(verifier: Verifier, key: RSAKey) -> None:
    with pytest.raises(InvalidToken, match="not an access token"):
        verifier.verify(jwt.encode({"alg": "RS256", "typ": "JWT", "kid": key.kid}, claims(), key))


def test_a_foreign_key_even_under_our_key_id(verifier: Verifier, key: RSAKey) -> None:
    foreign = RSAKey.generate_key(2048)
    for kid in (key.kid, "unknown", None):
        header = {"alg": "RS256", "typ": "at+jwt", **({"kid": kid} if kid else {})}
        with pytest.raises(InvalidToken, match="malformed or its signature"):
            verifier.verify(jwt.encode(header, claims(), foreign))


def test_no_algorithm_and_the_public_key_as_a_secret(verifier: Verifier, layout: Layout) -> None:
    unsigned = f"{encoded({'alg': 'none', 'typ': 'at+jwt'})}.{encoded(claims())}."
    confused = jwt.encode(
        {"alg": "HS256", "typ": "at+jwt"},
        claims(),
        OctKey.import_key(KeyStore(layout).public_keys()[0].pem.replace("-----BEGIN", "")),
        algorithms=["HS256"],
    )
    for token in (unsigned, confused):
        with pytest.raises(InvalidToken, match="malformed or its signature"):
            verifier.verify(token)


def test_a_changed_payload(issuer: Issuer, verifier: Verifier) -> None:
    header, _, signature = issuer.issue("ana").split(".")
    with pytest.raises(InvalidToken):
        verifier.verify(f"{header}.{encoded(claims(sub='root'))}.{signature}")


def test_a_token_beyond_any_size(verifier: Verifier) -> None:
    with pytest.raises(InvalidToken, match="too long"):
        verifier.verify("a" * 10_000)


@given(st.one_of(st.text(max_size=300), st.lists(st.text(max_size=80), min_size=3, max_size=3).map(".".join)))
def test_no_text_is_anything_but_an_invalid_token(verifier: Verifier, text: str) -> None:
    with pytest.raises(InvalidToken):
        verifier.verify(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    max_leaves=5,
)


@given(json_values, json_values)
def test_no_json_is_anything_but_an_invalid_token(verifier: Verifier, header: object, payload: object) -> None:
    with pytest.raises(InvalidToken):
        verifier.verify(f"{encoded(header)}.{encoded(payload)}.AAAA")


def test_a_verified_token_still_expires(issuer: Issuer, verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    token = issuer.issue("ana", ttl=60)
    verifier.verify(token)
    monkeypatch.setattr(time, "time", lambda: 10**10)
    with pytest.raises(InvalidToken, match="expired"):
        verifier.verify(token)


def test_a_new_key_is_found_and_unknown_keys_do_not_make_it_read_the_file_each_time(
    key: RSAKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: list[float] = []

    class Counted:
        def read(self) -> KeySet:
            readings.append(time.monotonic())
            return KeySet([key])

    verifier = Verifier(Counted(), "shop", "shop")
    verifier.verify(Issuer(key, "shop", "shop").issue("ana"))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 5)
    foreign = RSAKey.generate_key(2048)
    for number in range(100):
        with pytest.raises(InvalidToken):
            verifier.verify(jwt.encode({"alg": "RS256", "typ": "at+jwt", "kid": f"k{number}"}, claims(), foreign))
    assert len(readings) == 2


def test_the_signing_key_is_private_and_made_once(layout: Layout, key: RSAKey) -> None:
    assert KeyStore(layout).signing_key().thumbprint() == key.thumbprint()
    assert stat.S_IMODE(layout.signing_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(layout.keys.stat().st_mode) == 0o700
    public = json.loads(layout.jwks.read_text())
    assert [set(k) for k in public["keys"]] == [{"kty", "n", "e", "kid", "use", "alg"}]


def test_first_uses_at_the_same_time_make_one_key(make_folder: Callable[[], Path]) -> None:
    layout = Layout(make_folder() / "s")
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: KeyStore(layout).signing_key().thumbprint(), range(8)))
    assert len(set(keys)) == 1


@pytest.mark.parametrize("content", ["{bad", "[]", "{}", '{"kty": "oct"}', ""])
def test_a_damaged_key_is_named(make_folder: Callable[[], Path], content: str) -> None:
    layout = Layout(make_folder() / "s")
    KeyStore(layout).signing_key()
    layout.signing_key.write_text(content)
    with pytest.raises(KeyDamaged, match=rf"{layout.signing_key} cannot be read"):
        KeyStore(layout).signing_key()


def test_a_key_that_is_gone_is_not_silently_replaced(make_folder: Callable[[], Path]) -> None:
    layout = Layout(make_folder() / "s")
    KeyStore(layout).signing_key()
    layout.signing_key.unlink()
    with pytest.raises(KeyDamaged, match="is missing, but its public key is still in use"):
        KeyStore(layout).signing_key()


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"keys": 5}'])
def test_without_public_keys_nothing_is_valid(issuer: Issuer, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "jwks.json").write_text(content)
    with pytest.raises(InvalidToken):
        Verifier(JwksFile(tmp_path / "jwks.json"), "shop", "shop").verify(issuer.issue("ana"))
