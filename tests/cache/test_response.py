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


class Raw:
    """An ASGI app that sends messages as they are given, behind the middleware."""

    def __init__(self, *messages: dict[str, Any], fails: bool = False, after: float = 0.0, **options: Any) -> None:
        self.calls = 0
        self.messages = messages
        self.fails = fails
        self.after = after
        self.app = Cache(unique("raw"), jitter=0).response(status=True, **options)(self)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        for message in self.messages:
            await send(message)
            await asyncio.sleep(0)
        if self.fails:
            raise RuntimeError("no")
        await asyncio.sleep(self.after)

    async def ask(self, **headers: str) -> httpx.Response:
        return await self.client.get("/", headers=headers)


def start(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes = b"x", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


@pytest.mark.parametrize(
    "messages",
    [
        [start((b"vary", b"accept"), (b"vary", b"cookie")), body()],
        [start((b"cache-control", b"max-age=60"), (b"Cache-Control", b"no-store")), body()],
        [start((b"cache-control", b"no-cache")), body()],
        [start((b"cache-control", b"s-maxage=0")), body()],
        [start((b"content-type", b"text/event-stream")), body()],
        [start((b"content-length", b"5")), body()],  # an answer cut short
        [start(status=503), body()],
    ],
)
async def test_answers_that_are_not_to_be_kept(messages: list[dict[str, Any]]) -> None:
    raw = Raw(*messages, vary=["accept"])
    for _ in range(2):
        assert (await raw.ask()).content == b"x"
    assert raw.calls == 2
    await raw.client.aclose()


async def test_an_answer_that_never_ends_is_not_kept(connected: CacheSystem) -> None:
    raw = Raw(start(), body(b"half", more=True), fails=True)
    for _ in range(2):
        assert (await raw.ask()).status_code == 500
    assert raw.calls == 2
    await raw.client.aclose()


async def test_hosts_and_services_have_their_own_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = Raw(start(), body())
    for host in ("a.example", "b.example", "a.example"):
        await raw.ask(host=host)
    assert raw.calls == 2
    for service in ("one", "two"):
        monkeypatch.setenv("ESCALA_SERVICE", service)
        again = Cache(raw.app._cache).response()(raw)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(again), base_url="http://a.example") as client:
            await client.get("/")
    assert raw.calls == 4
    await raw.client.aclose()


async def test_an_app_that_fails_as_it_streams_ends_its_own_answer_only() -> None:
    raw = Raw(start((b"content-type", b"text/event-stream")), body(b"a", more=True), fails=True, stale_if_error="10s")
    found = await asyncio.gather(*(raw.ask() for _ in range(3)), return_exceptions=True)
    assert len(found) == 3
    assert raw.calls == 3
    await raw.client.aclose()


async def test_a_stream_has_no_time_limit() -> None:
    raw = Raw(start((b"content-type", b"text/event-stream")), body(), timeout="50ms", after=0.2)
    assert (await raw.ask()).content == b"x"
    await raw.client.aclose()


async def test_what_an_app_does_after_its_answer_delays_nobody() -> None:
    raw = Raw(start(), body(), after=5)
    async with asyncio.timeout(2):
        assert (await raw.ask()).content == b"x"
        assert (await raw.ask()).content == b"x"
    assert raw.calls == 1
    await raw.client.aclose()


async def test_a_client_that_leaves_does_not_spoil_the_answer(connected: CacheSystem) -> None:
    go = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"a", more=True))
        await go.wait()
        await send(body(b"b"))

    app = Cache(unique("slow")).response()(slow)

    async def ask() -> bytes:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return (await client.get("/")).content

    first, second = asyncio.create_task(ask()), asyncio.create_task(ask())
    await asyncio.sleep(0.1)
    first.cancel()
    go.set()
    assert await second == b"ab"
    assert await ask() == b"ab"


async def test_an_old_answer_is_given_where_the_app_fails() -> None:
    raw = Raw(start(), body(), ttl="50ms", stale_if_error="10s")
    await raw.ask()
    raw.messages, raw.fails = (), True
    await asyncio.sleep(0.1)
    assert (await raw.ask()).content == b"x"
    raw.messages, raw.fails = (start(status=503), body(b"no")), False
    await asyncio.sleep(1.1)
    assert (await raw.ask()).status_code == 503  # an answer of the app's own is passed on
    await raw.client.aclose()


async def test_a_conditional_request_may_be_the_first(connected: CacheSystem) -> None:
    calls: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(dict(scope["headers"]).get(b"if-none-match", b""))
        await send(start((b"etag", b'"1"')))
        await send(body())

    cached = Cache(unique("conditional")).response()(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(cached), base_url="http://test") as browser:
        for _ in range(3):
            assert (await browser.get("/", headers={"If-None-Match": '"1"'})).status_code == 304
        assert (await browser.get("/")).status_code == 200
    assert calls == [b""]


async def test_a_stream_ends_when_its_client_leaves(connected: CacheSystem) -> None:
    """Also one that was begun to refresh an answer, which nobody waits for."""
    ended = asyncio.Event()
    kind = [b"text/plain"]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start((b"content-type", kind[0])))
        if kind[0] == b"text/plain":
            await send(body())
            return
        try:
            while True:
                await send(body(more=True))
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    sent: list[Any] = []
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}

    async def receive() -> Any:
        return await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        sent.append(message)

    cached = Cache(unique("stream"), jitter=0).response(ttl="50ms", stale="10s")(app)
    await cached(scope, receive, send)
    kind[0] = b"text/event-stream"
    await asyncio.sleep(0.1)
    await cached(scope, receive, send)  # the old answer, and a refresh that turns out to be a stream
    async with asyncio.timeout(5):
        await ended.wait()
        ended.clear()
        watching = asyncio.create_task(cached({**scope, "path": "/stream"}, receive, send))
        while len(sent) < 10:
            await asyncio.sleep(0.01)
        watching.cancel()
        await ended.wait()


async def test_answers_that_were_passed_on_are_not_held(connected: CacheSystem) -> None:
    raw = Raw(start(), body(b"x" * 2_000_000))
    for number in range(5):
        await raw.client.get(f"/{number}")
    assert all(kept.error.recording is None for kept in connected.loading._errors.values())  # type: ignore[attr-defined]
    await raw.client.aclose()
