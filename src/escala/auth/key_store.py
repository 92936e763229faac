"""The keys of a project on disk: the private key that signs tokens, and the public keys that verify them."""

import fcntl
import json
from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey, KeySet, RSAKey

from escala.auth.jwks import ALGORITHM, UNREADABLE, PublicKey, read_jwks
from escala.errors import KeyDamaged, UnknownKey
from escala.project.atomic_write import write_atomically
from escala.project.layout import Layout

_BITS = 2048


class KeyStore:
    """The signing key and the public keys of a project, as files under `.escala/keys`."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def signing_key(self) -> RSAKey:
        """Return the signing key; create it on first use. Its `kid` is its thumbprint (RFC 7638).

        Raises KeyDamaged if a key file cannot be read, or if only the signing key's file is missing.
        """
        self._layout.create()
        with (self._layout.keys / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two concurrent first uses must create only one key
            return self._read_or_make()

    def _read_or_make(self) -> RSAKey:
        path, jwks = self._layout.signing_key, self._layout.jwks
        if not path.exists():
            if jwks.exists():
                raise KeyDamaged(path, "is missing, but its public key is still in use")
            fresh = RSAKey.generate_key(_BITS, auto_kid=True)
            write_atomically(path, json.dumps(fresh.as_dict(private=True)))
        key = _import(path)
        own = key.as_dict(private=False, use="sig", alg=ALGORITHM)
        public = json.dumps({"keys": [own, *(k for k in self._trusted() if k["kid"] != own["kid"])]})
        if not jwks.exists() or jwks.read_text(encoding="utf-8") != public:
            write_atomically(jwks, public)
        return key

    def public_keys(self) -> list[PublicKey]:
        """Return every key that verifies tokens, the signing key's public half first."""
        self.signing_key()
        keys = read_jwks(self._layout.jwks).keys
        return [
            PublicKey(str(key.kid), str(key.get("alg", ALGORITHM)), key.as_pem(private=False).decode())
            for key in keys
            if isinstance(key, RSAKey | ECKey)
        ]

    def trust(self, jwk: dict[str, Any]) -> None:
        """Add a public key (a JWK as in RFC 7517, with `kid` and `alg`) to the keys that verify tokens."""
        self._write_trusted([*(k for k in self._trusted() if k["kid"] != jwk["kid"]), jwk])

    def prepare_rotation(self) -> str:
        """Create the next signing key and return its `kid`.

        Its public half verifies tokens from now on. The old key keeps signing until `finish_rotation`.
        """
        self.signing_key()
        if self._layout.next_key.exists():  # left by an interrupted rotation
            fresh = _import(self._layout.next_key)
        else:
            fresh = RSAKey.generate_key(_BITS, auto_kid=True)
            write_atomically(self._layout.next_key, json.dumps(fresh.as_dict(private=True)))
        self.trust(fresh.as_dict(private=False, use="sig", alg=ALGORITHM))
        return str(fresh.kid)

    def finish_rotation(self) -> None:
        """Sign with the prepared key from now on. Tokens of the old key stay valid until it is retired."""
        old = self.signing_key()
        self.trust(old.as_dict(private=False, use="sig", alg=ALGORITHM))
        self._layout.next_key.replace(self._layout.signing_key)
        self.signing_key()

    def retire(self, kid: str) -> None:
        """Refuse tokens of the key `kid` from now on.

        Raises UnknownKey if there is no such key, or if it is the signing key.
        """
        own = str(self.signing_key().kid)
        others = [key for key in self._trusted() if key["kid"] != own]
        if kid not in {key["kid"] for key in others}:
            raise UnknownKey(kid, [str(key["kid"]) for key in others])
        self._write_trusted([key for key in others if key["kid"] != kid])

    def _write_trusted(self, keys: list[dict[str, Any]]) -> None:
        write_atomically(self._layout.trusted_keys, json.dumps({"keys": keys}))
        self.signing_key()  # this also rewrites the public key file

    def _trusted(self) -> list[dict[str, Any]]:
        path = self._layout.trusted_keys
        if not path.exists():
            return []
        try:
            keys = json.loads(path.read_text(encoding="utf-8"))["keys"]
            return [dict(key) for key in keys if KeySet.import_key_set({"keys": [key]}) and key["kid"]]
        except UNREADABLE as error:
            raise KeyDamaged(path, f"cannot be read ({type(error).__name__})") from None


def _import(path: Path) -> RSAKey:
    try:
        return RSAKey.import_key(json.loads(path.read_text(encoding="utf-8")))
    except UNREADABLE as error:
        raise KeyDamaged(path, f"cannot be read ({type(error).__name__})") from None
