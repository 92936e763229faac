"""One line of the access log: as HAProxy sends it, and as it is kept."""

import re
from urllib.parse import unquote

import msgspec

from escala.lanes import service_of

FIELDS = 23

_ENCODED = re.compile("#([0-9A-F]{2})")
"""A character that HAProxy encodes in its log, as a quote (its manual, section 8.6)."""


class Entry(msgspec.Struct, kw_only=True, gc=False):
    """A request. Durations are milliseconds; -1 where the request did not get so far."""

    time: float
    """Seconds since the epoch at which it began."""
    client: str
    method: str
    path: str
    """Without the query, which may hold secrets; the first 1,019 bytes."""
    protocol: str
    route: str | None
    service: str | None
    replica: str | None
    status: int
    received: int
    """Bytes from the client."""
    sent: int
    """Bytes to the client."""
    head: int
    """Until the request's head was there."""
    queue: int
    """In the queue for a replica."""
    connect: int
    response: int
    """From the request sent to the response's head."""
    total: int
    retries: int
    subject: str | None
    """The token's `sub`; null where the line that first named it was lost."""
    token: str | None
    """The beginning of the token's SHA-256."""
    id: str | None
    """X-Request-ID"""
    termination: str
    """HAProxy's session state at disconnection (configuration manual, section 8.5); "--" is a normal end."""


class NotALine(ValueError):
    """Something else than a request's line."""


def parse(line: bytes) -> tuple[Entry, int, int]:
    """Return what HAProxy sent, which worker (`Numbering`) and its number there; raise NotALine for anything else."""
    fields = line.decode(errors="replace").split("\t", FIELDS - 1)
    if len(fields) != FIELDS:
        raise NotALine(line)
    (time, client, method, status, head, queue, connect, response, total, sent, received) = fields[:11]
    (service, replica, retries, termination, request, worker, number) = fields[11:18]
    (token, subject, route, protocol, path) = fields[18:]
    try:
        entry = Entry(
            time=float(time),
            client=client,
            method=method,
            path=_ENCODED.sub(_character, path) if "#" in path else path,
            protocol=protocol,
            route=_known(route),
            service=_known(service_of(service)),
            replica=_known(replica),
            status=int(status),
            received=int(received),
            sent=int(sent.lstrip("+")),
            head=int(head),
            queue=int(queue),
            connect=int(connect),
            response=int(response),
            total=int(total.lstrip("+")),
            retries=int(retries.lstrip("+")),
            subject=unquote(subject) if subject != "-" else None,
            token=_known(token),
            id=_known(request),
            termination=termination[:2],
        )
        return entry, int(worker), int(number)
    except ValueError as error:
        raise NotALine(line) from error


def _character(encoded: re.Match[str]) -> str:
    return chr(int(encoded[1], 16))


def _known(text: str) -> str | None:
    return None if text in {"-", "", "<NOSRV>"} else text


_encoder = msgspec.json.Encoder()


def encode(entry: Entry) -> bytes:
    return _encoder.encode(entry) + b"\n"


def decode(line: bytes) -> Entry:
    return msgspec.json.decode(line, type=Entry)
