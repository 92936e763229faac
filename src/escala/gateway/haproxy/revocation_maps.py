"""Which tokens are revoked, as the gateway's maps have it."""

import hashlib
from dataclasses import dataclass, field


def digest(text: str) -> str:
    """Return the key of an identifier in a map: HAProxy's ``sha2(256),hex``."""
    return hashlib.sha256(text.encode()).hexdigest().upper()


@dataclass
class Revocations:
    """Loaded from PostgreSQL before the gateway takes traffic, and whenever there is a new one."""

    tokens: frozenset[str] = field(default_factory=frozenset)
    """The `jti` of tokens."""
    users: dict[str, int] = field(default_factory=dict)
    """A `sub`, and the second since the epoch at or before which its tokens were made that are revoked."""

    def maps(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the entries of both maps."""
        tokens = {digest(token): "1" for token in self.tokens}
        return tokens, {digest(user): str(since) for user, since in self.users.items()}
