"""Runs a WSGI app (PEP 3333) as an ASGI app: each request runs in a thread of a pool.

The protocol itself is the standard library's reference implementation (`handler`). Two modules connect it to ASGI:
`environ` builds the environ from the scope. `exchange` passes the body to the thread and the response to the event
loop, and tells the thread that the client has disconnected.
"""

import asyncio
import contextlib
import contextvars
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from starlette.types import Receive, Scope, Send

from escala.http.problem import Problem
from escala.replica.wsgi.exchange import Exchange
from escala.replica.wsgi.handler import Handler

WsgiApp = Callable[..., Iterable[bytes]]


class WsgiServer:
    """ASGI app that runs a WSGI app in a pool of `threads` threads."""

    def __init__(self, app: WsgiApp, threads: int) -> None:
        self.threads = threads
        self._app = app
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="wsgi")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})  # closing before accepting answers 403
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(asyncio.get_running_loop(), receive, lazy=_expects_continue(scope))
        run = contextvars.copy_context().run
        await exchange.serve(self._executor.submit(run, self._in_thread, scope, exchange), send)
        if exchange.refusal is not None and not exchange.started:
            if exchange.refusal.status_code == 413:  # raised by BodyLimit, which also answers it
                raise exchange.refusal
            await Problem(exchange.refusal.status_code, exchange.refusal.detail).response()(scope, receive, send)

    def _in_thread(self, scope: Scope, exchange: Exchange) -> None:
        if not exchange.gone:  # the client may have disconnected while the request waited for a thread
            Handler(scope, exchange).run(self._app)


def _expects_continue(scope: Scope) -> bool:
    return any(name == b"expect" and value.lower() == b"100-continue" for name, value in scope["headers"])


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    async with _connections():
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


@contextlib.asynccontextmanager
async def _connections() -> AsyncIterator[None]:
    """Connect the database and the cache if the app has imported one: a WSGI app has no lifespan to do so."""
    if sys.modules.keys() & {"escala.cache", "escala.database"}:
        from escala.connections import running  # an app that uses neither is spared the time and the memory

        async with running():
            yield
    else:
        yield
