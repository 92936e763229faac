"""The user or client that a token identifies."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """The user or client that a verified access token identifies."""

    subject: str
    """The `sub` claim."""
    scopes: frozenset[str]
    """The words of the `scope` claim."""
    token_id: str
    """The `jti` claim."""
    expires_at: int
    """The `exp` claim, seconds since the epoch."""

    def has(self, *scopes: str) -> bool:
        """Return whether the token holds all of `scopes`; True if none is given."""
        return self.scopes.issuperset(scopes)
