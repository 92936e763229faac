"""Telling systemd how it goes (sd_notify(3)): only where it asked to be told, by $NOTIFY_SOCKET."""

import contextlib
import os
import socket


def notify(*states: str) -> None:
    """Send states such as "READY=1"; nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # an abstract one (unix(7))
        address = f"\0{address[1:]}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        to.sendto("\n".join(states).encode(), address)
