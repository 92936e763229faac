"""What the rendered configuration names outside of itself: sockets, files, keys."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """A public key that verifies tokens."""

    kid: str
    algorithm: str
    file: str
    """PEM."""


@dataclass(frozen=True, kw_only=True)
class RenderContext:
    """Where the configuration's text points to."""

    bind: str
    """Where clients connect: an address, or "fd@N" for a listening socket that HAProxy inherits."""
    redirect: str | None
    """The same for plain HTTP that is sent on to HTTPS."""
    admin: str
    """The same for metrics."""
    socket: str
    """The Runtime API's Unix socket."""
    unavailable: str
    """The Unix socket of the frontend that stands in for a service without replicas."""
    access_log: str | None
    """The pipe for the lines of the access log, as "fd@N"."""
    route_metrics: str
    """The Unix socket on which the collector answers."""
    hold: str
    """The Lua script that lets requests wait for a service that sleeps."""
    routes: str
    backends: str
    revoked_tokens: str
    revoked_users: str
    """Maps; as keys, relative to the folder that HAProxy runs in, as an argument of a function cannot hold any path."""
    keys: tuple[Key, ...]
    certificates: str | None
