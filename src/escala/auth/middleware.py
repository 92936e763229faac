"""Verification in the replica: the network in front of it is not trusted."""

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

_STATE = "escala_principal"


class Middleware:
    """ASGI middleware: a request without a valid access token gets 401, with one it carries a Principal.

    `public` path prefixes (whole segments) pass without one, those that begin with "!" do not, and the longest decides:
    by default the service's health page and its routes, as escala.toml has them. A token that is brought all the same
    is verified, and its principal is there. Keys, issuer and audience come from the environment unless a `verifier` is
    given. Answers follow RFC 6750.
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
        await self.app(scope, receive, send)


def current(connection: HTTPConnection) -> Principal:
    """Return the request's principal: ``user: auth.Principal = Depends(auth.current)``."""
    principal = connection.scope.get("state", {}).get(_STATE)
    if principal is None:
        raise Problem(401, "This needs an access token.", headers={"WWW-Authenticate": "Bearer"})
    return principal  # type: ignore[no-any-return]


def require(*scopes: str) -> Callable[[HTTPConnection], Principal]:
    """Return a dependency that answers 403 unless the token holds all of `scopes`."""

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
    # A request that brought no token learns only how to authenticate (RFC 6750, section 3.1).
    challenge = (
        "Bearer" if reason == "no access token" else f'Bearer error="invalid_token", error_description="{reason}"'
    )
    return Problem(401, f"{reason[0].upper()}{reason[1:]}.", headers={"WWW-Authenticate": challenge}).response()
