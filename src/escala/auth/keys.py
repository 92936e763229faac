"""The key that signs tokens, and the public keys that verify them."""

import fcntl
import json
from pathlib import Path

from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey

from escala.errors import KeyDamaged
from escala.layout import Layout, write_atomically

ALGORITHM = "RS256"
UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, JoseError)
"""What reading a key file that is absent, damaged, or of another shape raises."""

_BITS = 2048


class KeyStore:
    """The signing key and the public keys of a project, as files under `.escala/keys`."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def signing_key(self) -> RSAKey:
        """Return the signing key; it is made on first use. Its `kid` is its thumbprint (RFC 7638)."""
        self._layout.create()
        with (self._layout.keys / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two first uses at a time make one key
            return self._read_or_make()

    def _read_or_make(self) -> RSAKey:
        path, jwks = self._layout.signing_key, self._layout.jwks
        if not path.exists():
            if jwks.exists():
                raise KeyDamaged(path, "is gone, while its public key is still in use")
            fresh = RSAKey.generate_key(_BITS, auto_kid=True)
            write_atomically(path, json.dumps(fresh.as_dict(private=True)))
        try:
            key = RSAKey.import_key(json.loads(path.read_text(encoding="utf-8")))
        except UNREADABLE as error:
            raise KeyDamaged(path, f"cannot be read ({type(error).__name__})") from None
        public = json.dumps({"keys": [key.as_dict(private=False, use="sig", alg=ALGORITHM)]})
        if not jwks.exists() or jwks.read_text(encoding="utf-8") != public:
            write_atomically(jwks, public)
        return key

    def public_pem(self) -> str:
        """Return the public half of the signing key as PEM, as HAProxy wants it."""
        return self.signing_key().as_pem(private=False).decode()


def read_jwks(path: Path) -> KeySet:
    """Read a file of public keys (RFC 7517)."""
    return KeySet.import_key_set(json.loads(path.read_text(encoding="utf-8")))
