"""The messages of the control socket. A request for an operation has its kind in the field "kind"."""

from typing import Annotated, Literal

import msgspec

from escala.config.difference import Change
from escala.errors import EscalaError


class Request(msgspec.Struct, tag_field="kind", forbid_unknown_fields=True):
    """A request to change the running project."""

    @property
    def kind(self) -> str:
        return str(type(self).__struct_config__.tag)


class Scale(Request, tag="scale"):
    """Change the number of replicas of a service."""

    service: str
    count: int


class Drain(Request, tag="drain"):
    """Stop sending new requests to a replica, or resume sending them."""

    replica: str
    drained: bool


class Apply(Request, tag="apply"):
    """Apply the project's file."""


class Canary(msgspec.Struct):
    share: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    """The canary's share of the service's requests, from 0 to 1."""
    seconds: Annotated[float, msgspec.Meta(gt=0)]


class Roll(Request, tag="roll"):
    """Replace the replicas of services."""

    services: Annotated[list[str], msgspec.Meta(min_length=1)] | None
    """None means all services."""
    canary: Canary | None = None


class Revoke(Request, tag="revoke"):
    """Revoke a token, or all tokens that a user has."""

    subject: Literal["token", "user"]
    value: Annotated[str, msgspec.Meta(min_length=1)]
    expires_at: float | None
    """Seconds since the epoch; None if it is not known."""


class Reload(Request, tag="reload"):
    """Make the gateway reload keys and certificates."""

    what: Literal["keys", "certificates"]


AnyRequest = Scale | Drain | Apply | Roll | Revoke | Reload


class Applied(msgspec.Struct):
    """What an `apply` changes."""

    changes: list[Change]
    rolling: list[str]
    """Services whose replicas have to be replaced because of it."""
    warnings: list[str] = []
    """What the change makes possible, and only a restart can make room for."""


class Refusal(msgspec.Struct):
    """Why a request was refused, or an operation failed."""

    code: str
    """The error's class, such as "service_busy" (`errors.EscalaError.code`)."""
    error: str
    """The message for people."""
    exit_code: int
    """The exit code of the command that sent the request."""

    @classmethod
    def of(cls, error: EscalaError) -> "Refusal":
        return cls(error.code, str(error), error.exit_code)


class OperationStatus(msgspec.Struct, kw_only=True):
    """An operation: the request and its progress."""

    id: str
    kind: str
    services: list[str]
    """The services that it changes."""
    state: Literal["running", "succeeded", "failed"]
    step: str
    """A description of the current step."""
    done: int
    total: int
    """The progress, `done` of `total`, for example replaced replicas. Both are 0 if it cannot be counted."""
    applied: Applied | None
    """What an `apply` changes. None until the gateway has switched, and for other operations."""
    error: Refusal | None
    started_at: float
    ended_at: float | None
    """Seconds since the epoch."""
