"""What joins a WSGI app's thread to the loop."""

import asyncio

import pytest
from starlette.types import Message

from escala.replica.wsgi import exchange as module
from escala.replica.wsgi.exchange import ClientLeft, Exchange


async def silence() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_body_that_stands_still_frees_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BODY_SECONDS", 0.1)
    exchange = Exchange(asyncio.get_running_loop(), silence, lazy=False)
    with pytest.raises(OSError, match="did not arrive in time"):
        await asyncio.to_thread(exchange.read)
    assert exchange.refusal is not None
    assert exchange.refusal.status_code == 408


async def test_nothing_is_sent_to_a_client_that_has_left() -> None:
    async def left() -> Message:
        return {"type": "http.disconnect"}

    exchange = Exchange(asyncio.get_running_loop(), left, lazy=False)
    with pytest.raises(ClientLeft):
        await asyncio.to_thread(exchange.read)
    with pytest.raises(ClientLeft):
        await asyncio.to_thread(exchange.send, {"type": "http.response.body", "body": b"x"})
    assert not exchange.started
