"""Access tokens: JWTs as defined by RFC 9068. Escala signs its own with RS256."""

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
"""The maximum length in characters. A longer token is refused without being parsed."""

_KEYS_COOL_DOWN = 1.0
"""The minimum number of seconds between two readings of the keys that are caused by unknown key ids."""


class Issuer:
    """Issues access tokens."""

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
    """Return the id (`jti`) and expiry (`exp`, seconds since the epoch) of a token that is to be revoked.

    The signature and the issuer are not checked. Raises InvalidToken if the token cannot be read or lacks a claim.
    """
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return str(claims["jti"]), float(claims["exp"])
    except (ValueError, KeyError, IndexError, TypeError):
        raise InvalidToken("not a token with jti and exp") from None


class Verifier:
    """Verifies access tokens with public keys, without asking another service."""

    def __init__(self, source: KeySource, issuer: str, audience: str) -> None:
        self._source = source
        self._issuer = issuer
        self._audience = audience
        self._keys: KeySet | None = None
        self._keys_read_at = 0.0
        # Checking a signature takes 30 µs, and its outcome does not change, so it is cached. The expiry is checked on
        # every call.
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
            raise InvalidToken("the token was issued by another issuer")
        if self._audience not in audiences:
            raise InvalidToken("the token is for another audience")
        expires_at, not_before = claims.get("exp"), claims.get("nbf", 0)
        if not isinstance(expires_at, int) or not isinstance(not_before, int | float):
            raise InvalidToken("the token's exp or nbf is missing or not a number")
        if not_before > time.time():
            raise InvalidToken("the token is not yet valid")
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
                raise InvalidToken("this replica has no keys to verify tokens with") from None
            self._keys_read_at = time.monotonic()
        return self._keys

    def _read_keys_again(self) -> bool:
        """Have the keys read again because of an unknown key id; return whether they will be.

        This happens at most once per cool-down, however many unknown key ids arrive.
        """
        if time.monotonic() - self._keys_read_at < _KEYS_COOL_DOWN:
            return False
        self._keys = None
        self._verified.cache_clear()
        return True
