"""[auth]: sessions."""

from pydantic import Field, model_validator

from escala.config.section import Section
from escala.config.types import Duration, Identifier, Timeout
from escala.units import format_duration


class AuthSettings(Section):
    issuer: Identifier | None = None
    """The `iss` of tokens; the default is the project's name."""
    audience: Identifier | None = None
    """The `aud` of tokens; the default is the project's name."""
    access_ttl: Duration = 3600.0
    """How long an access token is valid."""
    max_ttl: Duration = 30 * 86400.0
    """The maximum lifetime of any token. A token with a longer one is refused. Revocations are kept for this time."""
    remember: int = Field(default=100_000, ge=100, le=10_000_000)
    """How many verified tokens the gateway remembers. If there are more, the oldest is verified again."""
    remember_for: Timeout = 300.0
    """How long the gateway remembers a verified token before it is verified again."""
    wrong_tokens: int = Field(default=500, ge=1, le=1_000_000)
    """How many refused tokens per second one address may send.

    Above that, its requests get 429 without verification, unless their token is remembered.
    """

    @model_validator(mode="after")
    def _within_the_longest(self) -> "AuthSettings":
        if self.access_ttl > self.max_ttl:
            raise ValueError(
                f"access_ttl ({format_duration(self.access_ttl)}) is above max_ttl ({format_duration(self.max_ttl)})"
            )
        return self
