"""Trailers of a chunked body are no headers (RFC 9110, section 6.5.1).

uvicorn appends them to the request's headers, where a client's X-Forwarded-For would stand beside the gateway's.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class WithoutTrailers(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, with a request's headers as they were before its body."""

    def on_headers_complete(self) -> None:
        self.scope["headers"] = self.headers.copy()
        super().on_headers_complete()
