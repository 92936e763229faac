"""The sockets, files and keys that the rendered configuration refers to."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """A public key that verifies tokens."""

    kid: str
    algorithm: str
    file: str
    """The path of its PEM file."""


@dataclass(frozen=True, kw_only=True)
class RenderContext:
    """Everything outside the configuration's text that the text refers to."""

    bind: str
    """Where clients connect: an address, or "fd@N" for a listening socket that HAProxy inherits."""
    redirect: str | None
    """The same, for plain HTTP requests that are redirected to HTTPS."""
    admin: str
    """The same, for metrics."""
    socket: str
    """The Runtime API's Unix socket."""
    unavailable: str
    """The Unix socket of the frontend that stands in for a service without replicas."""
    access_log: str | None
    """The pipe for access log lines, as "fd@N"."""
    route_metrics: str
    """The Unix socket of the access log's collector, which serves metrics by route."""
    hold: str
    """The Lua script that lets requests wait for a sleeping service."""
    routes: str
    backends: str
    revoked_tokens: str
    revoked_users: str
    """Map files. Like the key files, they are relative to HAProxy's working folder.

    The reason is that an argument of a HAProxy function cannot contain arbitrary paths.
    """
    keys: tuple[Key, ...]
    certificates: str | None
