"""Whole answers, kept for FastAPI, Starlette and Flask apps as they are."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Header, Response
from starlette.responses import StreamingResponse

from escala.cache import Cache, CacheSystem
from tests.cache.systems import unique
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("connected")


class Site:
    """An app behind the middleware, and a client of it."""

    def __init__(self, **options: Any) -> None:
        self.calls: list[str] = []
        self.cache = Cache(unique("site"), jitter=0)
        self.app = FastAPI()
        self.app.add_middleware(self.cache.response(status=True, **options))
        self.app.get("/catalog/{item}")(self.item)
        self.app.get("/private")(self.private)
        self.app.get("/stream")(self.stream)
        self.app.get("/broken")(self.broken)
        self.app.get("/language")(self.language)
        self.app.post("/catalog/{item}")(self.item)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def item(self, item: str, q: str = "") -> dict[str, Any]:
        self.calls.append(item)
        await asyncio.sleep(0.02)
        return {"item": item, "q": q, "call": len(self.calls)}

    async def private(self, response: Response) -> str:
        self.calls.append("private")
        response.set_cookie("session", "1")
        return "x"

    async def stream(self) -> StreamingResponse:
        def parts() -> Iterator[bytes]:
            for _ in range(3):
                yield b"x" * 1024**2

        self.calls.append("stream")
        return StreamingResponse(parts())

    async def broken(self) -> None:
        self.calls.append("broken")
        raise RuntimeError("no")

    async def language(self, response: Response, accept_language: str = Header("")) -> str:
        self.calls.append("language")
        response.headers["Vary"] = "Accept-Language"
        return accept_language

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site(tags=["catalog", "page:{path}"])
    yield made
    await made.client.aclose()


async def test_an_answer_is_made_once(site: Site) -> None:
    first = await site.get("/catalog/a")
    second = await site.get("/catalog/a")
    assert first.json() == second.json() == {"item": "a", "q": "", "call": 1}
    assert first.headers["cache-status"] == "escala; fwd=miss; stored"
    assert second.headers["cache-status"].startswith("escala; hit; detail=l")
    assert second.headers["content-type"] == "application/json"
    assert second.headers["cache-control"] == "no-cache"
    assert int(second.headers["age"]) < 5
    assert (await site.get("/catalog/a?q=1")).json()["q"] == "1"
    assert (await site.get("/catalog/b")).json()["item"] == "b"
    assert len(site.calls) == 3


async def test_clients_that_come_together_get_one_answer(site: Site) -> None:
    found = await asyncio.gather(*(site.get("/catalog/a") for _ in range(50)))
    assert {answer.text for answer in found} == {found[0].text}
    assert site.calls == ["a"]


async def test_a_client_that_has_it_gets_304(site: Site) -> None:
    etag = (await site.get("/catalog/a")).headers["etag"]
    for wanted in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        found = await site.get("/catalog/a", if_none_match=wanted)
        assert (found.status_code, found.content, found.headers["etag"]) == (304, b"", etag)
        assert "content-type" not in found.headers
    assert (await site.get("/catalog/a", if_none_match='"other"')).status_code == 200


async def test_head(site: Site) -> None:
    assert (await site.client.head("/catalog/a")).status_code == 405  # FastAPI's own answer
    await site.get("/catalog/a")
    found = await site.client.head("/catalog/a")
    assert (found.status_code, found.content) == (200, b"")


async def test_invalidation(site: Site) -> None:
    await site.get("/catalog/a")
    await site.cache.invalidate("page:/catalog/a")
    assert (await site.get("/catalog/a")).json()["call"] == 2
    await site.cache.invalidate("catalog")
    assert (await site.get("/catalog/a")).json()["call"] == 3


@pytest.mark.parametrize("path", ["/private", "/language", "/broken", "/nowhere"])
async def test_what_is_not_kept(site: Site, path: str) -> None:
    statuses = [(await site.get(path)).status_code for _ in range(3)]
    assert len(set(statuses)) == 1
    assert len(site.calls) == (0 if path == "/nowhere" else 3)


async def test_a_long_answer_is_passed_on_as_it_comes(site: Site) -> None:
    found = await asyncio.gather(*(site.get("/stream") for _ in range(3)))
    assert [len(answer.content) for answer in found] == [3 * 1024**2] * 3
    assert len(site.calls) == 3


@pytest.mark.parametrize("headers", [{"authorization": "Bearer x"}, {"cookie": "a=1"}, {"range": "bytes=0-1"}])
async def test_requests_of_one_person_are_passed_on(site: Site, headers: dict[str, str]) -> None:
    for _ in range(2):
        await site.get("/catalog/a", **headers)
    assert len(site.calls) == 2
    await site.client.post("/catalog/a")
    assert len(site.calls) == 3


async def test_answers_for_whoever_may_ask() -> None:
    site = Site(shared=True, paths=["/catalog/*"])
    for _ in range(2):
        await site.get("/catalog/a", authorization="Bearer x")
        await site.get("/language")
    assert site.calls == ["a", "language", "language"]
    await site.client.aclose()


async def test_answers_that_depend_on_a_header() -> None:
    site = Site(vary=["Accept-Language", "Authorization"])
    for _ in range(2):
        for language in ("es", "en"):
            found = await site.get("/language", accept_language=language)
            assert found.json() == language
            assert found.headers["vary"] == "accept-language, authorization"
        await site.get("/catalog/a", authorization="Bearer x")
        await site.get("/catalog/a", authorization="Bearer y")
    assert sorted(site.calls) == ["a", "a", "language", "language"]
    await site.client.aclose()


async def test_a_stale_answer_is_given_while_a_new_one_is_made() -> None:
    site = Site(ttl="50ms", stale="10s")
    await site.get("/catalog/a")
    await asyncio.sleep(0.1)
    assert "fwd=stale" in (await site.get("/catalog/a")).headers["cache-status"]

    async def new() -> bool:
        return bool((await site.get("/catalog/a")).json()["call"] > 1)

    await eventually(new, "the new answer", 5)
    await site.client.aclose()


async def test_a_refresh_that_is_not_kept_reaches_nobody(connected: CacheSystem) -> None:
    site = Site(ttl="50ms", stale="10s")
    await site.get("/catalog/a")

    async def private(scope: Any, receive: Any, send: Any) -> None:
        site.calls.append("changed")
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    assert site.app.middleware_stack is not None
    stack: Any = site.app.middleware_stack
    while not hasattr(stack, "_vary"):
        stack = stack.app
    stack.app = private
    await asyncio.sleep(0.1)
    assert (await site.get("/catalog/a")).json()["call"] == 1

    async def refreshed() -> bool:
        return "changed" in site.calls and not connected.loading.loads

    await eventually(refreshed, "the refresh has ended", 5)
    await site.client.aclose()
