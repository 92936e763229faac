"""What the command line sends to the control socket, and what it gets where something was not done."""

from typing import Literal

import msgspec

from escala.config.difference import Change


class Scale(msgspec.Struct):
    service: str
    count: int


class Drain(msgspec.Struct):
    replica: str
    drained: bool


class Apply(msgspec.Struct):
    dry: bool


class Applied(msgspec.Struct):
    """What an `apply` took over, or would."""

    changes: list[Change]
    rolling: list[str]
    """Services whose replicas are replaced for it."""


class Canary(msgspec.Struct):
    share: float
    """Of the service's requests, from 0 to 1."""
    seconds: float


class Roll(msgspec.Struct):
    services: list[str] | None
    """None stands for all."""
    canary: Canary | None = None


class Revoke(msgspec.Struct):
    kind: Literal["token", "user"]
    value: str
    expires_at: float | None
    """Seconds since the epoch; None where it is not known."""


class Reload(msgspec.Struct):
    what: str


class Refusal(msgspec.Struct):
    """Why something asked for was not done, and the exit code of whoever asked."""

    error: str
    exit_code: int
