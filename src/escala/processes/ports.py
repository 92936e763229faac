"""TCP ports: whether one is free, which process holds it, and finding a free one."""

import errno
import socket

import psutil

from escala.config import Address
from escala.errors import PortTaken, StartError


def require_free(address: Address, wanted_by: str) -> None:
    """Raise PortTaken, with the holder's name and pid, if `address` is in use; StartError if it cannot be bound."""
    try:
        _try(address)
    except OSError as error:
        raise _reason(address, wanted_by, error) from None


def _reason(address: Address, wanted_by: str, error: OSError) -> StartError:
    if error.errno == errno.EADDRINUSE:
        return PortTaken(str(address), wanted_by, holder(address.port))
    if error.errno == errno.EACCES:
        return StartError(
            f"{wanted_by} cannot listen on {address}: ports below 1024 need root; choose a port from 1024 up"
        )
    return StartError(f"{wanted_by} cannot listen on {address}: {error.strerror}")


def reserve(address: Address, wanted_by: str) -> socket.socket:
    """Bind `address` and return the socket, for a process that will listen on it; raise as `require_free` does."""
    require_free(address, wanted_by)
    server = _socket(address)
    try:
        server.bind((address.host, address.port))
    except OSError as error:  # another process was faster
        server.close()
        raise _reason(address, wanted_by, error) from None
    return server


def is_free(address: Address) -> bool:
    try:
        _try(address)
    except OSError:
        return False
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def holder(port: int) -> str | None:
    """Return the process that listens on `port` as "name (pid N)"; None if there is none, or we may not see it."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return None
    for connection in connections:
        if connection.status != psutil.CONN_LISTEN or not connection.laddr or connection.laddr.port != port:
            continue
        if connection.pid is None:
            return None
        try:
            return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
        except psutil.Error:
            return f"pid {connection.pid}"
    return None


def _try(address: Address) -> None:
    """Bind and listen without SO_REUSEPORT. HAProxy sets it, so two gateways would share a port and its requests."""
    with _socket(address) as probe:
        probe.bind((address.host, address.port))
        probe.listen(1)


def _socket(address: Address) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made
