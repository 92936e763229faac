"""The public keys that verify tokens (RFC 7517)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from joserfc.errors import JoseError
from joserfc.jwk import KeySet

ALGORITHM = "RS256"
"""The algorithm that the project's own key signs with."""
ALGORITHMS = ["RS256", "ES256"]
"""The algorithms that a public key may be used for. Each key names one of them."""
UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, JoseError)
"""The exceptions raised by reading a key file that is missing, damaged, or in an unexpected format."""


@dataclass(frozen=True)
class PublicKey:
    """A key that verifies tokens, with the only algorithm that it may be used with (RFC 8725, section 3.1)."""

    kid: str
    algorithm: str
    pem: str


class KeySource(Protocol):
    """Where a verifier gets its public keys."""

    def read(self) -> KeySet:
        """Return the current keys; raise one of `UNREADABLE` if they cannot be read."""
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
