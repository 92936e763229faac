"""Who a token speaks for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    subject: str
    """The `sub` claim."""
    scopes: frozenset[str]
    token_id: str
    """The `jti` claim."""
    expires_at: int
    """The `exp` claim, seconds since the epoch."""

    def has(self, *scopes: str) -> bool:
        """Whether the token holds all of `scopes`."""
        return self.scopes.issuperset(scopes)
