"""Uvicorn embedded in one of our processes, which handles signals itself."""

import contextlib
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp


class EmbeddedServer(uvicorn.Server):
    """Serves an app on the sockets passed to `serve` until `should_exit` is set; logs only errors."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="error",
                access_log=False,
                lifespan="off",
                loop="asyncio",
                ws="none",
                timeout_graceful_shutdown=1,  # a client that stops reading must not hold up the end
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
