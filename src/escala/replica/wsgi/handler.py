"""PEP 3333 with the standard library's reference implementation (`wsgiref`), on an exchange instead of files.

`wsgiref` implements `start_response`, `write`, `close`, and errors before and after the head. This module adds what
`wsgiref` leaves to servers. It also changes when the head is sent, and when a Content-Length is added.
"""

import contextlib
import io
import json
import sys
from typing import Any
from wsgiref.handlers import BaseHandler
from wsgiref.headers import Headers
from wsgiref.util import is_hop_by_hop

from starlette.types import Message, Scope

from escala.http.statuses import title
from escala.replica.wsgi.environ import environ_of
from escala.replica.wsgi.exchange import ClientLeft, Exchange


class _Input(io.RawIOBase):
    """The request body as a raw stream.

    An `io.BufferedReader` on top of it provides all read methods of PEP 3333 ("Input and Error Streams").
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(self._exchange.read())
        taken = self._rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)


class Handler(BaseHandler):
    """`wsgiref`'s handler, which reads from and writes to an exchange instead of files."""

    environ: dict[str, Any]
    headers: Headers | None
    status: str | None
    bytes_sent: int
    headers_sent: bool
    wsgi_run_once = False
    os_environ: dict[str, str] = {}  # noqa: RUF012 - keeps the process's own environment out of environ

    def __init__(self, scope: Scope, exchange: Exchange) -> None:
        self._scope = scope
        self._exchange = exchange
        self._pending: list[Message] = []
        self._finished = False

    # What the app receives

    def get_stdin(self) -> Any:
        return io.BufferedReader(_Input(self._exchange), 64 * 1024)

    def get_stderr(self) -> Any:
        return sys.stderr

    def get_scheme(self) -> str:
        return str(self._scope.get("scheme", "http"))

    def add_cgi_vars(self) -> None:
        self.environ.update(environ_of(self._scope))

    # What it answers

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        # Hop-by-hop headers are the server's business.
        kept = [(str(name), str(value)) for name, value in headers if not is_hop_by_hop(name)]
        return super().start_response(str(status), kept, exc_info)

    def write(self, data: bytes) -> None:
        if data or self.headers_sent:  # the head waits for the first byte (PEP 3333, "The start_response() Callable")
            super().write(data)

    def send_headers(self) -> None:
        self.cleanup_headers()
        self.headers_sent = True
        assert self.headers is not None
        self._pending.append(
            {
                "type": "http.response.start",
                "status": int(str(self.status)[:3]),
                "headers": [
                    (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()
                ],
            }
        )

    def _write(self, data: bytes) -> None:
        if not self._finished:  # data beyond Content-Length is dropped
            self._pending.append({"type": "http.response.body", "body": data, "more_body": True})

    def _flush(self) -> None:
        """Send what was written without delay (PEP 3333, "Buffering and Streaming").

        When Content-Length is reached, this ends the response.
        """
        if self._finished:
            return
        assert self.headers is not None
        length = self.headers["Content-Length"]
        if length is not None and length.isdigit() and self.bytes_sent >= int(length):
            last = self._pending[-1]
            last["body"] = last["body"][: len(last["body"]) - (self.bytes_sent - int(length))]
            last["more_body"] = False
            self._finished = True
        self._deliver()

    def finish_content(self) -> None:
        assert self.headers is not None
        if not self.headers_sent:
            has_body = self._scope["method"] != "HEAD" and str(self.status)[:3] not in ("204", "304")
            if has_body:
                self.headers.setdefault("Content-Length", "0")
            self.send_headers()
        if not self._finished:
            self._finished = True
            self._pending.append({"type": "http.response.body", "body": b""})
            self._deliver()

    def _deliver(self) -> None:
        messages, self._pending = self._pending, []
        self._exchange.send(*messages)

    # What goes wrong

    def run(self, application: Any) -> None:
        # This replaces wsgiref's method, which takes every ConnectionError for a disconnected client, even one from the
        # app's own connection to its database.
        try:
            self.setup_environ()
            self.result = application(self.environ, self.start_response)
            self.finish_response()
        except ClientLeft:
            pass
        except BaseException:  # SystemExit too: it must not affect other requests
            with contextlib.suppress(ClientLeft):
                self.handle_error()

    def handle_error(self) -> None:
        """Answer 500 if the head is not sent yet. Otherwise stop: uvicorn then closes the connection."""
        if self._exchange.refusal is not None and not self._exchange.started:
            return  # the server answers with the refusal (see WsgiServer)
        self.log_exception(sys.exc_info())
        if not self._exchange.started:
            self._pending.clear()
            self.headers_sent = False
            self.result = self.error_output(self.environ, self.start_response)
            self.finish_response()

    def error_output(self, environ: Any, start_response: Any) -> list[bytes]:
        document = {
            "type": "about:blank",
            "title": title(500),
            "status": 500,
            "detail": "The service failed to handle this request.",
        }
        headers = [("Content-Type", "application/problem+json")]
        start_response("500 Internal Server Error", headers, sys.exc_info())
        return [json.dumps(document).encode()]
