from collections.abc import Iterator, MutableMapping
from pathlib import Path

import httpx
import pytest
from fastapi import Depends, FastAPI, WebSocket

from escala import auth
from escala.auth.jwks import JwksFile
from escala.auth.key_store import KeyStore
from escala.auth.tokens import Issuer, Verifier
from escala.http import problem
from escala.project.layout import Layout


@pytest.fixture(scope="module")
def issuer(session_folder: Path) -> Issuer:
    return Issuer(KeyStore(Layout(session_folder / "middleware")).signing_key(), "shop", "shop")


@pytest.fixture(scope="module")
def app(session_folder: Path, issuer: Issuer) -> FastAPI:
    app = FastAPI(exception_handlers=problem.handlers())
    verifier = Verifier(JwksFile(Layout(session_folder / "middleware").jwks), "shop", "shop")
    app.add_middleware(auth.Middleware, verifier=verifier, public=("/health", "/open", "!/open/not"))

    @app.get("/me")
    async def me(user: auth.Principal = Depends(auth.current)) -> dict[str, object]:
        return {"subject": user.subject, "scopes": sorted(user.scopes)}

    @app.get("/admin")
    async def admin(user: auth.Principal = Depends(auth.require("admin", "write"))) -> str:
        return user.subject

    @app.get("/open")
    async def open_page() -> str:
        return "open"

    @app.get("/open/me")
    async def open_me(user: auth.Principal = Depends(auth.current)) -> str:
        return user.subject

    @app.get("/open-but-asks")
    async def asks(user: auth.Principal = Depends(auth.current)) -> str:
        return user.subject

    @app.websocket("/ws")
    async def ws(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")

    return app


async def get(app: FastAPI, path: str, *authorization: str) -> httpx.Response:
    headers = [("Authorization", value) for value in authorization]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.get(path, headers=headers)


async def test_a_valid_token_is_a_principal(app: FastAPI, issuer: Issuer) -> None:
    answer = await get(app, "/me", f"Bearer {issuer.issue('ana', ['b', 'a'])}")
    assert answer.json() == {"subject": "ana", "scopes": ["a", "b"]}


async def test_the_scheme_is_read_without_regard_to_case(app: FastAPI, issuer: Issuer) -> None:
    assert (await get(app, "/me", f"bEARER {issuer.issue('ana')}")).status_code == 200


@pytest.mark.parametrize("authorization", [[], ["Basic abc"], ["Bearer "], ["Bearer"]])
async def test_without_a_token_only_the_scheme_is_named(app: FastAPI, authorization: list[str]) -> None:
    answer = await get(app, "/me", *authorization)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_bad_token_is_told_why(app: FastAPI) -> None:
    answer = await get(app, "/me", "Bearer x.y.z")
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert answer.json()["title"] == "Unauthorized"


async def test_two_authorization_headers_are_refused(app: FastAPI, issuer: Issuer) -> None:
    token = f"Bearer {issuer.issue('ana')}"
    assert (await get(app, "/me", token, token)).status_code == 401


async def test_scopes(app: FastAPI, issuer: Issuer) -> None:
    refused = await get(app, "/admin", f"Bearer {issuer.issue('ana', ['admin'])}")
    assert refused.status_code == 403
    assert 'scope="admin write"' in refused.headers["www-authenticate"]
    assert (await get(app, "/admin", f"Bearer {issuer.issue('ana', ['admin', 'write'])}")).text == '"ana"'


async def test_public_prefixes_by_whole_segments_the_longest_decides(app: FastAPI, issuer: Issuer) -> None:
    statuses = {
        "/open": 200,
        "/open/unknown": 404,
        "/open/not": 401,
        "/open/not/x": 401,
        "/open/nothing": 404,
        "/opener": 401,
        "/open-but-asks": 401,
    }
    assert {path: (await get(app, path)).status_code for path in statuses} == statuses
    assert (await get(app, "/open", "Bearer x.y.z")).status_code == 200
    assert (await get(app, "/open/me", f"Bearer {issuer.issue('ana')}")).text == '"ana"'
    assert (await get(app, "/open/me")).status_code == 401


async def handshake(app: FastAPI, headers: list[tuple[bytes, bytes]]) -> list[str]:
    """Open a WebSocket by hand; return the types of the messages that the app sends."""
    sent: list[str] = []
    incoming: Iterator[dict[str, object]] = iter(
        [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]
    )

    async def receive() -> dict[str, object]:
        return next(incoming)

    async def send(message: MutableMapping[str, object]) -> None:
        sent.append(str(message["type"]))

    scope = {"type": "websocket", "path": "/ws", "headers": headers, "query_string": b"", "subprotocols": []}
    await app(scope, receive, send)
    return sent


async def test_websockets(app: FastAPI, issuer: Issuer) -> None:
    bearer = f"Bearer {issuer.issue('ana')}".encode()
    assert await handshake(app, [(b"authorization", bearer)]) == ["websocket.accept", "websocket.send"]
    assert await handshake(app, []) == ["websocket.close"]
