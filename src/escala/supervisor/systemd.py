"""Notify systemd of the supervisor's state (sd_notify(3)), but only if it asked for that by setting $NOTIFY_SOCKET."""

import contextlib
import os
import socket


def notify(*states: str) -> None:
    """Send states such as "READY=1". If nobody listens, do nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket (unix(7))
        address = f"\0{address[1:]}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        to.sendto("\n".join(states).encode(), address)
