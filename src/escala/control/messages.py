"""What is sent over the control socket. A request for an operation carries its kind in the field "kind"."""

from typing import Literal

import msgspec

from escala.config.difference import Change
from escala.errors import EscalaError


class Request(msgspec.Struct, tag_field="kind", forbid_unknown_fields=True):
    """A request to change something that runs."""

    @property
    def kind(self) -> str:
        return str(type(self).__struct_config__.tag)


class Scale(Request, tag="scale"):
    """Run another number of replicas."""

    service: str
    count: int


class Drain(Request, tag="drain"):
    """Send no new requests to a replica, or send them again."""

    replica: str
    drained: bool


class Apply(Request, tag="apply"):
    """Take over the project's file."""


class Canary(msgspec.Struct):
    share: float
    """Of the service's requests, from 0 to 1."""
    seconds: float


class Roll(Request, tag="roll"):
    """Replace the replicas of services."""

    services: list[str] | None
    """None stands for all."""
    canary: Canary | None = None


class Revoke(Request, tag="revoke"):
    """Refuse a token, or all tokens that a user has."""

    subject: Literal["token", "user"]
    value: str
    expires_at: float | None
    """Seconds since the epoch; None where it is not known."""


class Reload(Request, tag="reload"):
    """Let the gateway read keys and certificates again."""

    what: str


AnyRequest = Scale | Drain | Apply | Roll | Revoke | Reload


class Applied(msgspec.Struct):
    """What an `apply` changes."""

    changes: list[Change]
    rolling: list[str]
    """Services whose replicas are replaced for it."""


class Refusal(msgspec.Struct):
    """Why something asked for was not done."""

    code: str
    """The error's class, such as "service_busy" (`errors.EscalaError.code`)."""
    error: str
    """The message for people."""
    exit_code: int
    """Of the command that asked."""

    @classmethod
    def of(cls, error: EscalaError) -> "Refusal":
        return cls(error.code, str(error), error.exit_code)


class OperationStatus(msgspec.Struct, kw_only=True):
    """An operation: what was asked, and how far it is."""

    id: str
    kind: str
    services: list[str]
    """What it changes."""
    state: Literal["running", "succeeded", "failed"]
    step: str
    """What it is doing, in words."""
    done: int
    total: int
    """How much of it is done, such as replicas that were replaced; 0 of 0 where that cannot be counted."""
    applied: Applied | None
    """Of an `apply`: what it changes, from when the gateway has switched."""
    error: Refusal | None
    started_at: float
    ended_at: float | None
    """Seconds since the epoch."""
