"""The phase of a supervisor's life: starting, ready or stopping."""

import time
from dataclasses import dataclass, field
from typing import Literal

from escala.errors import NotReady


@dataclass
class Phase:
    project: str
    name: Literal["starting", "ready", "stopping"] = "starting"
    began: float = field(default_factory=time.monotonic)
    started_at: float = field(default_factory=time.time)
    """Seconds since the epoch."""

    def require_ready(self) -> None:
        if self.name != "ready":
            raise NotReady(self.project, self.name)
