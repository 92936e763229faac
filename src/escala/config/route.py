"""A route: path prefix → service, with its policy."""

from typing import Any

from pydantic import model_validator

from escala.config.balance import Capacity
from escala.config.policy import Percent, Policy
from escala.config.section import Section
from escala.config.types import Name, UrlPath


class SplitSettings(Section):
    """The share of a route's requests that goes to another service, for example to a canary release."""

    service: Name
    percent: Percent
    """The percentage of requests; the service is chosen at random for each request."""


class RouteSettings(Policy):
    path: UrlPath
    """The path prefix. It matches whole segments: "/data" matches /data and /data/x, but not /database."""
    to: UrlPath | None = None
    """What replaces the prefix in requests to the service; by default the path is unchanged."""
    split: SplitSettings | None = None
    balance: Capacity = Capacity()
    """Settings for this route only. With them, its requests are queued and counted separately from other routes'."""

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
