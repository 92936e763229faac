"""Lines of the access log: as HAProxy sends them, and as they are stored."""

import re
from collections.abc import Sequence
from urllib.parse import unquote

import msgspec

from escala.gateway.topology.backend_names import service_of

_ENCODED = re.compile("(?:#[0-9A-F]{2})+")
"""Bytes that HAProxy encodes in its log, such as a quote (its manual, section 8.6)."""


class Entry(msgspec.Struct, kw_only=True, gc=False):
    """A request. Durations are in milliseconds; -1 if the request did not get that far."""

    time: float
    """When it began, in seconds since the epoch."""
    client: str
    method: str
    path: str
    """Without the query, which may contain secrets, and cut off after 1,019 bytes."""
    protocol: str
    route: str | None
    service: str | None
    replica: str | None
    status: int
    """499 if the client left before it was answered: HTTP itself has no status for that."""
    received: int
    """Bytes from the client."""
    sent: int
    """Bytes to the client."""
    head: int
    """Until the request's head was received."""
    queue: int
    """In the queue for a replica."""
    connect: int
    response: int
    """From sending the request to receiving the response's head."""
    total: int
    retries: int
    subject: str | None
    """The token's `sub`; null if the line that first named it was lost."""
    token: str | None
    """The beginning of the token's SHA-256."""
    id: str | None
    """X-Request-ID"""
    termination: str
    """HAProxy's session state at disconnection (configuration manual, section 8.5); "--" is a normal end."""


class _Sent(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """The fields that HAProxy sends, in its order (`LOG_FIELDS` of `gateway.render.frontend_section`), or "-".

    HAProxy puts "+" before a number that may still grow. It also puts "+" before `retries` if another replica was
    tried.
    """

    time: float
    client: str
    method: str
    status: int
    head: int
    queue: int
    connect: int
    response: int
    total: str
    sent: str
    received: int
    service: str
    replica: str
    retries: str
    termination: str
    request: str
    worker: int
    number: int
    token: str
    subject: str
    route: str
    protocol: str
    path: str

    def _client_left(self) -> bool:
        """Whether the client left before an answer began (HAProxy's manual, section 8.5).

        If the client left while it was in the queue, HAProxy's status is -1. If it left while a replica was working,
        the status is 400, which the frontend turns into 408. Time-outs have a lower-case "c".
        """
        return self.termination[:1] == "C" and (
            self.status == -1 or (self.status in (400, 408) and self.response == -1)
        )

    def entry(self) -> Entry:
        return Entry(
            time=self.time,
            client=self.client,
            method=_decoded(self.method),
            path=_decoded(self.path),
            protocol=self.protocol,
            route=_known(self.route),
            service=_known(service_of(self.service)),
            replica=_known(self.replica),
            status=CLIENT_LEFT if self._client_left() else self.status,
            received=self.received,
            sent=int(self.sent),
            head=self.head,
            queue=self.queue,
            connect=self.connect,
            response=self.response,
            total=int(self.total),
            retries=int(self.retries),
            subject=unquote(self.subject) if self.subject != "-" else None,
            token=_known(self.token),
            id=_known(self.request),
            termination=self.termination[:2],
        )


CLIENT_LEFT = 499
"""The same status that nginx uses."""

_FIELDS = len(_Sent.__struct_fields__)
_decoder = msgspec.json.Decoder(list[_Sent], strict=False)


def parse(lines: Sequence[bytes]) -> list[tuple[Entry, int, int]]:
    """Return entries, each with the HAProxy worker it comes from and that worker's number for it.

    Lines that do not describe a request are left out.
    """
    try:
        return _parse(lines)
    except ValueError:
        return [found for line in lines for found in _parse_one(line)]


def _parse(lines: Sequence[bytes]) -> list[tuple[Entry, int, int]]:
    """Parse all lines at once, as JSON. That is several times as fast as parsing each field by itself."""
    text = b"\n".join(lines).decode(errors="replace").replace("\\", "\\\\").replace('"', '\\"')
    rows = text.replace("\t", '","').replace("\n", '"],["')
    return [(sent.entry(), sent.worker, sent.number) for sent in _decoder.decode(f'[["{rows}"]]')]


def _parse_one(line: bytes) -> list[tuple[Entry, int, int]]:
    *fields, path = line.split(b"\t", _FIELDS - 1)  # the last field takes the rest
    try:
        return _parse([b"\t".join([*fields, path.replace(b"\t", b"#09")])])
    except ValueError:
        return []


def _decoded(text: str) -> str:
    return _ENCODED.sub(_bytes, text) if "#" in text else text


def _bytes(encoded: re.Match[str]) -> str:
    return bytes.fromhex(encoded[0].replace("#", "")).decode(errors="replace")


def _known(text: str) -> str | None:
    return None if text in {"-", "", "<NOSRV>"} else text


_encoder = msgspec.json.Encoder()


def encode(entries: Sequence[Entry]) -> bytes:
    return _encoder.encode_lines(entries)


def decode(line: bytes) -> Entry:
    return msgspec.json.decode(line, type=Entry)
