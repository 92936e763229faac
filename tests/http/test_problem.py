from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from escala import Problem
from escala.errors import CacheUnavailable, DatabaseUnavailable, TaskArguments, UnknownTask
from escala.http import problem
from escala.http.internal_headers import MAX_BODY
from escala.replica.middleware.body_limit import BodyLimit


class Body(BaseModel):
    number: int


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI(exception_handlers=problem.handlers())
    errors = {
        "problem": Problem(409, "It is there.", headers={"X-A": "1"}, choices=["a"]),
        "database": DatabaseUnavailable("away"),
        "cache": CacheUnavailable("x", "gone"),
        "task": UnknownTask("x", ["a"]),
        "arguments": TaskArguments("x", "y"),
    }

    @app.get("/raise/{name}")
    async def fail(name: str) -> None:
        raise errors[name]

    @app.post("/body")
    async def body(body: Body) -> int:
        return body.number

    return app


async def call(app: object, method: str, path: str, **more: object) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/raise/problem", 409),
        ("/raise/database", 503),
        ("/raise/cache", 503),
        ("/raise/task", 422),
        ("/raise/arguments", 422),
        ("/raise/bug", 500),
        ("/nowhere", 404),
        ("/body", 405),
    ],
)
async def test_every_error_is_a_problem_document(app: FastAPI, path: str, status: int) -> None:
    answer = await call(app, "GET", path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert {"type", "title", "detail"} <= set(document)
    assert "KeyError" not in answer.text


async def test_members_and_headers_of_its_own(app: FastAPI) -> None:
    answer = await call(app, "GET", "/raise/problem")
    assert answer.json()["choices"] == ["a"]
    assert answer.headers["x-a"] == "1"
    assert (await call(app, "GET", "/raise/cache")).headers["retry-after"] == "1"


async def test_validation(app: FastAPI) -> None:
    wrong = await call(app, "POST", "/body", json={"number": "x"})
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["field"] == "number"
    garbage = await call(app, "POST", "/body", content=b"{garb", headers={"content-type": "application/json"})
    assert garbage.status_code == 400


async def test_a_body_without_announced_length_is_counted() -> None:
    async def read(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 100

    app = Starlette(routes=[Route("/", read, methods=["POST"])], exception_handlers=problem.handlers())
    assert (await call(BodyLimit(app, 1000), "POST", "/", content=chunks())).text == "1000"
    refused = await call(BodyLimit(app, 999), "POST", "/", content=chunks())
    assert (refused.status_code, refused.headers["content-type"]) == (413, "application/problem+json")


async def test_the_limit_holds_for_an_app_of_any_framework() -> None:
    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"read"})

    assert (await call(BodyLimit(bare, 10), "POST", "/", content=b"x" * 10)).text == "read"
    assert (await call(BodyLimit(bare, 10), "POST", "/", content=b"x" * 11)).status_code == 413
    for named, size, status in (("5", 5, 200), ("5", 6, 413), ("20", 11, 413), ("-1", 10, 200), ("9" * 5000, 10, 200)):
        answer = await call(BodyLimit(bare, 10), "POST", "/", content=b"x" * size, headers={MAX_BODY: named})
        assert answer.status_code == status, (named, size)
