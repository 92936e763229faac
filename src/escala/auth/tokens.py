"""Access tokens: JWT as RFC 9068 has them, signed with RS256."""

import base64
import json
import time
import uuid
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet, RSAKey

from escala.auth.jwks import ALGORITHM, ALGORITHMS, UNREADABLE, JwksFile, KeySource
from escala.auth.principal import Principal
from escala.environment import Environment
from escala.errors import InvalidToken

TYPE = "at+jwt"
MAX_TOKEN = 8 * 1024
"""Characters; a longer one is refused unread."""

_KEYS_COOL_DOWN = 1.0
"""Seconds between two readings of the keys because of an unknown key id."""


class Issuer:
    """Makes access tokens."""

    def __init__(self, key: RSAKey, issuer: str, audience: str) -> None:
        self._key = key
        self._issuer = issuer
        self._audience = audience

    def issue(self, subject: str, scopes: Iterable[str] = (), ttl: float = 3600.0) -> str:
        """Return a token for `subject` that expires `ttl` seconds from now."""
        now = int(time.time())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": subject,
            "client_id": subject,
            "iat": now,
            "exp": now + int(ttl),
            "jti": uuid.uuid4().hex,
            "scope": " ".join(dict.fromkeys(scopes)),
        }
        header = {"alg": ALGORITHM, "kid": self._key.kid, "typ": TYPE}
        return jwt.encode(header, claims, self._key, algorithms=[ALGORITHM])


def read_unverified(token: str) -> tuple[str, float]:
    """Return id and expiry of a token whoever made it, to revoke it; raise InvalidToken where it has none."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return str(claims["jti"]), float(claims["exp"])
    except (ValueError, KeyError, IndexError, TypeError):
        raise InvalidToken("not a token with jti and exp") from None


class Verifier:
    """Checks access tokens against public keys, without asking anybody."""

    def __init__(self, source: KeySource, issuer: str, audience: str) -> None:
        self._source = source
        self._issuer = issuer
        self._audience = audience
        self._keys: KeySet | None = None
        self._keys_read_at = 0.0
        # A signature costs 30 µs to check and stays good; what expires is looked at every time.
        self._verified = lru_cache(maxsize=4096)(self._verify)

    @classmethod
    def from_environment(cls, environment: Environment) -> "Verifier":
        return cls(JwksFile(Path(environment.jwks)), environment.issuer, environment.audience)

    def verify(self, token: str) -> Principal:
        """Return the principal of a valid token; raise InvalidToken with the reason otherwise."""
        if len(token) > MAX_TOKEN:
            raise InvalidToken("the token is too long")
        principal = self._verified(token)
        if principal.expires_at <= time.time():
            raise InvalidToken("the token has expired")
        return principal

    def _verify(self, token: str) -> Principal:
        try:
            decoded = self._decode(token)
        except (JoseError, ValueError, TypeError) as error:
            raise InvalidToken("the token is malformed or its signature is wrong") from error
        if str(decoded.header.get("typ", "")).lower() != TYPE:
            raise InvalidToken(f"the token is not an access token (typ {TYPE})")
        return self._principal(decoded.claims)

    def _principal(self, claims: dict[str, Any]) -> Principal:
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if claims.get("iss") != self._issuer:
            raise InvalidToken("the token comes from another issuer")
        if self._audience not in audiences:
            raise InvalidToken("the token is for another audience")
        expires_at, not_before = claims.get("exp"), claims.get("nbf", 0)
        if not isinstance(expires_at, int) or not isinstance(not_before, int | float):
            raise InvalidToken("the token's times are not numbers")
        if not_before > time.time():
            raise InvalidToken("the token is not valid yet")
        subject, token_id, scope = claims.get("sub"), claims.get("jti"), claims.get("scope", "")
        if not (isinstance(subject, str) and isinstance(token_id, str) and isinstance(scope, str)):
            raise InvalidToken("the token lacks sub, jti or scope")
        return Principal(subject, frozenset(scope.split()), token_id, expires_at)

    def _decode(self, token: str) -> jwt.Token:
        try:
            return jwt.decode(token, self._current_keys(), algorithms=ALGORITHMS)
        except InvalidKeyIdError:
            if not self._read_keys_again():
                raise
            return jwt.decode(token, self._current_keys(), algorithms=ALGORITHMS)

    def _current_keys(self) -> KeySet:
        if self._keys is None:
            try:
                self._keys = self._source.read()
            except UNREADABLE:
                raise InvalidToken("there are no keys here to verify a token with") from None
            self._keys_read_at = time.monotonic()
        return self._keys

    def _read_keys_again(self) -> bool:
        """Read the keys once more for a key that is new to us; at most once in a cool-down, whatever arrives."""
        if time.monotonic() - self._keys_read_at < _KEYS_COOL_DOWN:
            return False
        self._keys = None
        self._verified.cache_clear()
        return True
