"""Token verification in the replica. The gateway verifies too, but the network between the two is not trusted."""

from collections.abc import Callable, Sequence
from functools import cached_property

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from escala.auth.principal import Principal
from escala.auth.tokens import Verifier
from escala.environment import Environment, is_under
from escala.errors import InvalidToken
from escala.http.internal_headers import PREFIX_KEY
from escala.http.problem import Problem
from escala.http.request_context import subject_of_request

_STATE = "escala_principal"


class Middleware:
    """ASGI middleware that verifies the access token of each HTTP request and WebSocket.

    A request with a valid token carries a Principal, which `current` returns. A request without one gets 401, and a
    WebSocket is closed with code 1008. The answers follow RFC 6750.

    `public` lists path prefixes, matched by whole segments, that need no token. A prefix that begins with "!" does need
    one. If several prefixes match, the longest decides. By default the list comes from the environment: the health page
    and the public routes that escala.toml declares for the service. On a public path a valid token still sets the
    principal, and an invalid one is ignored.

    `verifier` checks the tokens. By default it uses the keys, issuer and audience that the environment names.
    """

    def __init__(self, app: ASGIApp, public: Sequence[str] | None = None, verifier: Verifier | None = None) -> None:
        self.app = app
        self._public = tuple(Environment.read().public.split() if public is None else public)
        self._given = verifier

    @cached_property
    def _verifier(self) -> Verifier:
        return self._given or Verifier.from_environment(Environment.read())

    def _is_public(self, path: str) -> bool:
        matching = [entry for entry in self._public if is_under(path, entry.lstrip("!"))]
        longest = max(matching, key=lambda entry: len(entry.lstrip("!")), default="!")
        return not longest.startswith("!")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        try:
            principal = self._verifier.verify(_bearer(scope))
        except InvalidToken as error:
            if self._is_public(scope["path"].removeprefix(scope.get(PREFIX_KEY, ""))):
                await self.app(scope, receive, send)
                return
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": error.reason})
                return
            await _unauthorized(error.reason)(scope, receive, send)
            return
        scope.setdefault("state", {})[_STATE] = principal
        with subject_of_request.to(principal.subject):
            await self.app(scope, receive, send)


def current(connection: HTTPConnection) -> Principal:
    """Return the principal of a request or WebSocket: ``user: auth.Principal = Depends(auth.current)``.

    Raises Problem (401) if there is none: the path is public and the client sent no valid token, or the app does not
    use `Middleware`.
    """
    principal = connection.scope.get("state", {}).get(_STATE)
    if principal is None:
        raise Problem(401, "This needs an access token.", headers={"WWW-Authenticate": "Bearer"})
    return principal  # type: ignore[no-any-return]


def require(*scopes: str) -> Callable[[HTTPConnection], Principal]:
    """Return a FastAPI dependency that checks scopes: ``user: auth.Principal = Depends(auth.require("orders"))``.

    The dependency returns the principal if the token holds all of `scopes`. It raises Problem (403) if one is missing,
    and Problem (401) if the request has no principal.
    """

    def dependency(connection: HTTPConnection) -> Principal:
        principal = current(connection)
        if not principal.has(*scopes):
            needed = " ".join(scopes)
            challenge = f'Bearer error="insufficient_scope", scope="{needed}"'
            raise Problem(403, f"This needs the scopes: {needed}.", headers={"WWW-Authenticate": challenge})
        return principal

    return dependency


def _bearer(scope: Scope) -> str:
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        raise InvalidToken("no access token" if not values else "more than one Authorization header")
    kind, _, token = values[0].decode("latin-1").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise InvalidToken("no access token")
    return str(token.strip())


def _unauthorized(reason: str) -> ASGIApp:
    # A request without a token is told only how to authenticate, without an error code (RFC 6750, section 3.1).
    challenge = (
        "Bearer" if reason == "no access token" else f'Bearer error="invalid_token", error_description="{reason}"'
    )
    return Problem(401, f"{reason[0].upper()}{reason[1:]}.", headers={"WWW-Authenticate": challenge}).response()
