"""A route: path prefix → service, with its policy."""

from typing import Any

from pydantic import model_validator

from escala.config.balance import Capacity
from escala.config.policy import Percent, Policy
from escala.config.section import Section
from escala.config.types import Name, UrlPath


class SplitSettings(Section):
    """A share of a route's requests for another service: a canary."""

    service: Name
    percent: Percent
    """Of 100 requests, how many; each is drawn by itself."""


class RouteSettings(Policy):
    path: UrlPath
    """The prefix, matched by whole segments: "/data" matches /data and /data/x, not /database."""
    to: UrlPath | None = None
    """What the prefix becomes on the way to the service; without it the path stays."""
    split: SplitSettings | None = None
    balance: Capacity = Capacity()
    """What is said here, the route has for itself: its requests wait, and count as in flight, apart from the others."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"path": value}
        if isinstance(value, dict | RouteSettings):
            return value
        raise ValueError("expected a path, or a table with a path")

    @property
    def prefix(self) -> str:
        """The path without its trailing slash: "" for "/"."""
        return self.path.rstrip("/")
