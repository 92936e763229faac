"""The server name and port that an app sees when its replica listens on a Unix socket.

In that case ASGI gives the socket's path as the name, and no port. Both values appear in URLs that are built without a
Host header. They also become WSGI's SERVER_NAME and SERVER_PORT (PEP 3333), which must be a name and a port.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

_SERVER = ("localhost", 80)


class ServerName:
    """ASGI middleware: replaces a server that has no port with localhost, port 80."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        server = scope.get("server")
        if server is not None and server[1] is None:
            scope["server"] = _SERVER
        await self.app(scope, receive, send)
