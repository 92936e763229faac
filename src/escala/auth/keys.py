"""The key that signs tokens, and the public keys that verify them."""

import json
from pathlib import Path

from joserfc.jwk import KeySet, RSAKey

from escala.layout import Layout, write_atomically

ALGORITHM = "RS256"
_BITS = 2048


class KeyStore:
    """The signing key and the public keys of a project, as files under `.escala/keys`."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def signing_key(self) -> RSAKey:
        """Return the signing key; it is made on first use. Its `kid` is its thumbprint (RFC 7638)."""
        self._layout.create()
        path = self._layout.signing_key
        if not path.exists():
            fresh = RSAKey.generate_key(_BITS, auto_kid=True)
            write_atomically(path, json.dumps(fresh.as_dict(private=True)))
        key = RSAKey.import_key(json.loads(path.read_text(encoding="utf-8")))
        public = key.as_dict(private=False, use="sig", alg=ALGORITHM)
        write_atomically(self._layout.jwks, json.dumps({"keys": [public]}))
        return key

    def public_pem(self) -> str:
        """Return the public half of the signing key as PEM, as HAProxy wants it."""
        return self.signing_key().as_pem(private=False).decode()


def read_jwks(path: Path) -> KeySet:
    """Read a file of public keys (RFC 7517)."""
    return KeySet.import_key_set(json.loads(path.read_text(encoding="utf-8")))
