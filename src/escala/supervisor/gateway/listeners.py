"""The sockets that clients connect to. The supervisor holds them, and HAProxy inherits them.

So the addresses stay bound while HAProxy restarts after a crash. A client that connects in between waits and is not
refused.
"""

import contextlib
import socket

from escala.config import Address, GatewaySettings
from escala.gateway.haproxy.configuration import Bindings
from escala.processes import ports


class PublicListeners:
    def __init__(self, gateway: GatewaySettings) -> None:
        """Bind all addresses; raise PortTaken if one is in use."""
        self._sockets: list[socket.socket] = []
        try:
            self._bind_fd = self._reserve(gateway.bind, "the gateway (gateway.bind)")
            admin = gateway.admin or Address("127.0.0.1", ports.free_port())
            self._admin_fd = self._reserve(admin, "the gateway's metrics endpoint (gateway.admin)")
            self._sockets[-1].listen()  # a process that found this port free too now sees it taken
            self._redirect_fd = None
            if gateway.tls is not None and gateway.tls.redirect is not None:
                self._redirect_fd = self._reserve(gateway.tls.redirect, "the redirect to HTTPS (gateway.tls.redirect)")
        except BaseException:
            self.close()
            raise
        self.admin = admin
        self.bind = gateway.bind

    @property
    def bindings(self) -> Bindings:
        return Bindings(
            bind=f"fd@{self._bind_fd}",
            admin=f"fd@{self._admin_fd}",
            redirect=f"fd@{self._redirect_fd}" if self._redirect_fd is not None else None,
            descriptors=tuple(each.fileno() for each in self._sockets),
        )

    def shut(self) -> None:
        """Refuse new connections. Otherwise, HAProxy's master would keep listening until its workers have finished."""
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for each in self._sockets:
            each.close()

    def _reserve(self, address: Address, wanted_by: str) -> int:
        made = ports.reserve(address, wanted_by)
        self._sockets.append(made)
        return made.fileno()
