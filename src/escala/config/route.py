"""A route: path prefix → service, with its policy."""

from typing import Any

from pydantic import model_validator

from escala.config.section import Many, Scope, Section, UrlPath
from escala.config.units import Duration


class Route(Section):
    path: UrlPath
    """The prefix, matched by whole segments: "/data" matches /data and /data/x, not /database."""
    to: UrlPath | None = None
    """What the prefix becomes on the way to the service; without it the path stays."""
    public: bool = False
    """Whether requests need no token."""
    scopes: Many[Scope] = ()
    """Scopes that the token must hold, all of them; without one 403."""
    timeout: Duration | None = None
    """How long the service may take to answer; the gateway's timeout unless given."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> "Route":
        if self.public and self.scopes:
            raise ValueError("a public route has no token, so it cannot ask for scopes")
        return self

    @property
    def prefix(self) -> str:
        """The path without its trailing slash: "" for "/"."""
        return self.path.rstrip("/")
