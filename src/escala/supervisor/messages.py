"""What the command line sends to the control socket, and what it gets where something was not done."""

from typing import Literal

import msgspec


class Scale(msgspec.Struct):
    service: str
    count: int


class Drain(msgspec.Struct):
    replica: str
    drained: bool


class Apply(msgspec.Struct):
    dry: bool


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
