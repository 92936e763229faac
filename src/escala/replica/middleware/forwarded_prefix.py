"""The path prefix under which clients see an app. If a route strips a prefix, the app's root is not "/" for them.

The gateway names the prefix in X-Forwarded-Prefix. The app gets it as ASGI's `root_path`. ASGI's `path` begins with it
too (ASGI HTTP specification, "root_path" and "path"). A WSGI app gets it as SCRIPT_NAME.
"""

from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from escala.http.internal_headers import PREFIX, PREFIX_KEY

_HEADER = PREFIX.lower().encode()


class ForwardedPrefix:
    """ASGI middleware: sets `root_path`, `path` and `raw_path` as the client sees them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for name, value in scope.get("headers", ()):
            if name == _HEADER:
                _prefix(scope, value)
                break
        await self.app(scope, receive, send)


def _prefix(scope: Any, value: bytes) -> None:
    prefix = value.decode("latin-1")
    scope[PREFIX_KEY] = scope["root_path"] = prefix
    scope["path"] = prefix + scope["path"]
    if scope.get("raw_path") is not None:
        scope["raw_path"] = value + scope["raw_path"]
