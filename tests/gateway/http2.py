"""As much of an HTTP/2 client (RFC 9113) as the tests need: many requests at once, bodies of no announced length."""

import socket
from collections.abc import Sequence
from typing import NamedTuple

_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_STATUS_200 = 0x88  # its place in the static table (RFC 7541, appendix A)


class Asked(NamedTuple):
    path: str
    token: str | None = None
    body: bytes = b""


class Answered(NamedTuple):
    status: int
    body: bytes


def streams(url: str, requests: Sequence[Asked]) -> list[Answered]:
    """GET all of them at once on one connection; return the answers in the same order."""
    host, port = url.removeprefix("http://").split(":")
    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, b"")
    for number, (path, token, body) in enumerate(requests):
        fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", host)]
        fields += [("authorization", f"Bearer {token}")] if token else []
        block = b"".join(b"\0" + _literal(name) + _literal(value) for name, value in fields)
        stream = 2 * number + 1
        sent += _frame(_HEADERS, _END_HEADERS | (0 if body else _END_STREAM), stream, block)
        sent += _frame(_DATA, _END_STREAM, stream, body) if body else b""
    statuses, bodies, ended = dict[int, int](), dict[int, bytes](), set[int]()
    with socket.create_connection((host, int(port)), 10) as raw, raw.makefile("rb") as incoming:
        raw.sendall(sent)
        while len(ended) < len(requests):
            head = incoming.read(9)
            payload, kind, flags, stream = incoming.read(int.from_bytes(head[:3])), *head[3:5], int.from_bytes(head[5:])
            if kind == _HEADERS:  # the status comes first
                statuses[stream] = 200 if payload[0] == _STATUS_200 else int(payload[2:5])
            elif kind == _DATA:
                bodies[stream] = bodies.get(stream, b"") + payload
            if kind in {_HEADERS, _DATA} and flags & _END_STREAM:
                ended.add(stream)
    return [Answered(statuses[number], bodies.get(number, b"")) for number in range(1, 2 * len(requests), 2)]


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _literal(text: str) -> bytes:
    """Encode a text as RFC 7541 has it in 5.1 and 5.2: a length with a prefix of seven bits, not Huffman."""
    length, head = len(text), bytearray()
    if length < 127:
        head.append(length)
    else:
        head.append(127)
        length -= 127
        while length >= 128:
            head.append(length % 128 + 128)
            length //= 128
        head.append(length)
    return bytes(head) + text.encode()
