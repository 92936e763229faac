"""Public keys, as whoever verifies tokens needs them (RFC 7517)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from joserfc.errors import JoseError
from joserfc.jwk import KeySet

ALGORITHM = "RS256"
"""What the own key signs with."""
ALGORITHMS = ["RS256", "ES256"]
"""What keys may be for; each key names one of them."""
UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, JoseError)
"""What reading a key file that is absent, damaged, or of another shape raises."""


@dataclass(frozen=True)
class PublicKey:
    """A key that verifies tokens, with the one algorithm that it is for (RFC 8725, section 3.1)."""

    kid: str
    algorithm: str
    pem: str


class KeySource(Protocol):
    """Where a verifier gets its public keys."""

    def read(self) -> KeySet:
        """Return the keys of this moment; raise one of `UNREADABLE` where there are none to be had."""
        ...


@dataclass(frozen=True)
class JwksFile:
    """Keys in a file, which Escala replaces atomically."""

    path: Path

    def read(self) -> KeySet:
        return read_jwks(self.path)


def read_jwks(path: Path) -> KeySet:
    """Read a file of public keys (RFC 7517)."""
    return KeySet.import_key_set(json.loads(path.read_text(encoding="utf-8")))
