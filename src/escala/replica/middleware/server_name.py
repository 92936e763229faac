"""What an app is told of its server where it listens on a Unix socket.

ASGI then has the socket's path for a name and no port. They end up in URLs that are made without a Host header, and as
SERVER_NAME and SERVER_PORT of WSGI (PEP 3333), which must be a name and a port.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

_SERVER = ("localhost", 80)


class ServerName:
    """ASGI middleware: a server without a port is called localhost."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        server = scope.get("server")
        if server is not None and server[1] is None:
            scope["server"] = _SERVER
        await self.app(scope, receive, send)
