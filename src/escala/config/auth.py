"""[auth]: sessions."""

from escala.config.section import Identifier, Section
from escala.config.units import Duration


class Auth(Section):
    issuer: Identifier | None = None
    """The `iss` of tokens; the project's name unless given."""
    audience: Identifier | None = None
    """The `aud` of tokens; the project's name unless given."""
    access_ttl: Duration = 3600.0
    """How long an access token is valid."""
