"""[auth]: sessions."""

from pydantic import Field, model_validator

from escala.config.section import Section
from escala.config.types import Duration, Identifier, Timeout
from escala.units import format_duration


class AuthSettings(Section):
    issuer: Identifier | None = None
    """The `iss` of tokens; the project's name unless given."""
    audience: Identifier | None = None
    """The `aud` of tokens; the project's name unless given."""
    access_ttl: Duration = 3600.0
    """How long an access token is valid."""
    max_ttl: Duration = 30 * 86400.0
    """The longest that any token may be valid; one that claims more is refused. Revocations are kept so long."""
    remember: int = Field(default=100_000, ge=100, le=10_000_000)
    """Verified tokens that the gateway remembers; beyond it the oldest is verified again."""
    remember_for: Timeout = 300.0
    """How long it remembers one; then the token is verified again."""
    wrong_tokens: int = Field(default=500, ge=1, le=1_000_000)
    """Refused tokens a second from one address; above it, tokens that are not remembered get 429, unread."""

    @model_validator(mode="after")
    def _within_the_longest(self) -> "AuthSettings":
        if self.access_ttl > self.max_ttl:
            raise ValueError(
                f"access_ttl ({format_duration(self.access_ttl)}) is above max_ttl ({format_duration(self.max_ttl)})"
            )
        return self
