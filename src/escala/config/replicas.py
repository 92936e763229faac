"""[services.NAME.replicas], [services.NAME.rollout]: how many replicas there are, and how they are replaced."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from escala.config.section import Section
from escala.config.types import Duration

MAX_WINDOW = 3600.0
"""For how many seconds the autoscaler keeps samples."""


def _short(seconds: float) -> float:
    if seconds > MAX_WINDOW:
        raise ValueError("expected at most 1h")
    return seconds


Window = Annotated[Duration, AfterValidator(_short)]


class ReplicasSettings(Section):
    min: int = Field(default=1, ge=0, le=256)
    """The minimum and initial number of replicas. With 0, the service sleeps until a request arrives."""
    max: int | None = Field(default=None, ge=1, le=256)
    """The maximum number of replicas when the service scales automatically; the default is `min`."""
    target_inflight: float = Field(default=8.0, gt=0, le=100_000)
    """The target number of requests per replica, both in flight and waiting."""
    target_wait: Duration = 5.0
    """For workers: how long the oldest job may wait before another replica is started."""
    target_waiting: float = Field(default=20.0, gt=0, le=1_000_000)
    """For workers: the target number of waiting jobs per replica."""
    up_after: Window = 3.0
    """The time over which load is averaged before replicas are added. If the queue fills, they are added at once."""
    down_after: Window = 60.0
    """How long load must be low before replicas are removed."""

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        if isinstance(value, int):
            return {"min": value}
        if isinstance(value, dict | ReplicasSettings):
            return value
        raise ValueError("expected a number, or a table with min and max")

    @model_validator(mode="after")
    def _ordered(self) -> "ReplicasSettings":
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max ({self.max}) is below min ({self.min})")
        if self.most == 0:
            raise ValueError("min = 0 needs a max")
        return self

    @property
    def most(self) -> int:
        return self.min if self.max is None else self.max

    @property
    def scales(self) -> bool:
        """Whether the number of replicas is scaled automatically."""
        return self.most > self.min


class RolloutSettings(Section):
    max_surge: int = Field(default=1, ge=0, le=256)
    """How many replicas may exist above the desired number during a rollout."""
    max_unavailable: int = Field(default=0, ge=0, le=256)
    """How many of the desired replicas may be missing during a rollout."""
    settle: Duration = 2.0
    """How long a new replica must have been serving before the old one that it replaces is removed."""

    @model_validator(mode="after")
    def _moves(self) -> "RolloutSettings":
        if self.max_surge + self.max_unavailable == 0:
            raise ValueError("max_surge and max_unavailable cannot both be 0: nothing could be replaced")
        return self
