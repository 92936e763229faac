"""uvicorn inside a process of ours that handles its signals by itself."""

import contextlib
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp


class EmbeddedServer(uvicorn.Server):
    """Serves an app on sockets that are given to `serve`, quietly, until `should_exit` is set."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                app, log_config=None, log_level="error", access_log=False, lifespan="off", loop="asyncio", ws="none"
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
