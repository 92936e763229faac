"""Revoked tokens, as entries of the gateway's maps."""

import hashlib
from dataclasses import dataclass, field


def digest(text: str) -> str:
    """Return the map key of an identifier, computed like HAProxy's ``sha2(256),hex``."""
    return hashlib.sha256(text.encode()).hexdigest().upper()


@dataclass
class Revocations:
    """All revocations: loaded from PostgreSQL before the gateway accepts traffic, and after each new revocation."""

    tokens: frozenset[str] = field(default_factory=frozenset)
    """The `jti` of each revoked token."""
    users: dict[str, int] = field(default_factory=dict)
    """By `sub`, a time in seconds since the epoch; tokens issued at or before it are revoked."""

    def maps(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the entries of both maps: revoked tokens, then revoked users."""
        tokens = {digest(token): "1" for token in self.tokens}
        return tokens, {digest(user): str(since) for user, since in self.users.items()}
