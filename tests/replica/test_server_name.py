"""What an app is told of its server."""

import pytest
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from escala.replica.middleware.server_name import ServerName


@pytest.mark.parametrize(
    ("server", "url"),
    [
        (("/run/web.1.sock", None), "http://localhost/x"),
        (("127.0.0.1", 5001), "http://127.0.0.1:5001/x"),
    ],
)
async def test_a_url_without_a_host_header(server: tuple[str, int | None], url: str) -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(str(Request(scope).url))

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None: ...

    scope = {"type": "http", "scheme": "http", "server": server, "path": "/x", "query_string": b"", "headers": []}
    await ServerName(app)(scope, receive, send)
    assert seen == [url]


async def test_the_lifespan_has_no_server() -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None: ...

    await ServerName(app)({"type": "lifespan"}, receive, send)
    assert seen == [{"type": "lifespan"}]
